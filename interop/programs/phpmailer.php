<?php
// Sends a letter by PHPMailer, which composes it.
require '/usr/share/php/libphp-phpmailer/autoload.php';

use PHPMailer\PHPMailer\OAuthTokenProvider;
use PHPMailer\PHPMailer\PHPMailer;

class Token implements OAuthTokenProvider
{
    public function __construct(private array $job)
    {
    }

    public function getOauth64()
    {
        $user = $this->job['user'];
        $token = $this->job['token'];
        return base64_encode("user=$user\001auth=Bearer $token\001\001");
    }
}

$job = json_decode(file_get_contents($argv[1]), true);
$mail = new PHPMailer(true);
$mail->isSMTP();
$mail->SMTPDebug = 2;
$mail->Debugoutput = function ($text) { fwrite(STDERR, trim($text) . "\n"); };
$mail->Host = $job['host'];
$mail->Port = $job['port'];
$mail->Helo = 'client.test';
$mail->SMTPAutoTLS = false;
$mail->SMTPSecure = ['off' => '', 'starttls' => 'tls', 'implicit' => 'ssl'][$job['tls']];
$mail->SMTPOptions = ['ssl' => ['cafile' => $job['ca']]];
if ($job['mechanism']) {
    $mail->SMTPAuth = true;
    $mail->AuthType = $job['mechanism'];
    $mail->Username = $job['user'];
    $mail->Password = $job['password'];
    if ($job['mechanism'] === 'XOAUTH2') {
        $mail->setOAuth(new Token($job));
    }
}
$mail->CharSet = 'utf-8';
$mail->Encoding = $job['eight_bit'] ? '8bit' : '7bit';
$mail->setFrom($job['sender']);
$mail->Sender = $job['sender'];
$mail->addAddress($job['recipient']);
$mail->Subject = $job['subject'];
$mail->Body = $job['text'];
$mail->send();
