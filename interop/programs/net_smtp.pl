# Sends a letter by Perl's Net::SMTP.
use strict;
use warnings;
use Authen::SASL qw(Perl);
use JSON::PP;
use Net::SMTP;

sub slurp { open(my $file, '<:raw', $_[0]) or die "$_[0]: $!"; local $/; return <$file> }

my $job = decode_json(slurp($ARGV[0]));
my %tls = (
    SSL_ca_file => $job->{ca}, SSL_verifycn_name => $job->{host}, SSL_verify_mode => 1,
);
if ($job->{mechanism} eq 'EXTERNAL') {
    $tls{SSL_cert_file} = $job->{certificate};
    $tls{SSL_key_file} = $job->{key};
}
my $client = Net::SMTP->new(
    $job->{host}, Port => $job->{port}, Hello => 'client.test', Timeout => 50,
    Debug => 1, ($job->{tls} eq 'implicit' ? (SSL => 1, %tls) : ()),
) or die "no connection: $@";
if ($job->{tls} eq 'starttls') { $client->starttls(%tls) or die "STARTTLS: $@" }
if ($job->{mechanism}) {
    my $sasl = Authen::SASL->new(
        mechanism => $job->{mechanism},
        callback => {
            user => $job->{mechanism} eq 'EXTERNAL' ? '' : $job->{user},
            authname => '', pass => $job->{password},
        },
    );
    $client->auth($sasl) or die 'AUTH: ' . $client->message;
}
my @options = $job->{eight_bit} ? (Bits => 8) : ();
$client->mail($job->{sender}, @options) or die 'MAIL: ' . $client->message;
$client->to($job->{recipient}) or die 'RCPT: ' . $client->message;
$client->data() or die 'DATA: ' . $client->message;
$client->datasend(slurp($job->{content})) or die 'content: ' . $client->message;
$client->dataend() or die 'end: ' . $client->message;
$client->quit();
