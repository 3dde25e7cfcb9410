// Sends a letter by nodemailer.
const fs = require('fs');
const nodemailer = require('nodemailer');

const job = JSON.parse(fs.readFileSync(process.argv[2]));
const options = {
  host: job.host,
  port: job.port,
  name: 'client.test',
  secure: job.tls === 'implicit',
  requireTLS: job.tls === 'starttls',
  ignoreTLS: job.tls === 'off',
  tls: { ca: fs.readFileSync(job.ca) },
};
if (job.mechanism === 'XOAUTH2') {
  options.auth = { type: 'OAuth2', user: job.user, accessToken: job.token };
} else if (job.mechanism) {
  options.auth = { user: job.user, pass: job.password };
  options.authMethod = job.mechanism;
}
const envelope = { from: job.sender, to: [job.recipient], use8BitMime: job.eight_bit };
nodemailer.createTransport(options)
  .sendMail({ envelope, raw: fs.readFileSync(job.content) })
  .then((info) => console.log(info.response))
  .catch((error) => { console.error(error); process.exit(1); });
