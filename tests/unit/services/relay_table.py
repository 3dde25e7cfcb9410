r"""Spellings of recipients that might talk a server into relaying; each has a name.

We are ``gonzo.test``, ``sub.gonzo.test``, ``xn--mnchen-3ya.test`` (``münchen.test``),
``[192.0.2.25]`` and ``[IPv6:2001:db8::25]``; ``joe`` is a user and ``betty`` an alias
of his. ``elsewhere.test`` is not ours, nor are ``198.51.100.7``, ``2001:db8::bad``.

A line is a name and what stands behind ``RCPT TO:``, with ``\xNN`` for odd octets.
"""

FOREIGN = r"""
# The plain ways
plain                     <joe@elsewhere.test>
no-brackets               joe@elsewhere.test
blank-before              \x20 <joe@elsewhere.test>
upper-case                <JOE@ELSEWHERE.TEST>
mixed-case                <jOe@eLsEwHeRe.TeSt>
top-level-only            <joe@test>
subdomain-of-foreign      <joe@mx.elsewhere.test>
unknown-domain            <joe@nosuch.invalid>
postmaster-of-other       <postmaster@elsewhere.test>
abuse-of-other            <abuse@elsewhere.test>
root-of-other             <root@elsewhere.test>
mailer-daemon-of-other    <MAILER-DAEMON@elsewhere.test>
user-of-ours-elsewhere    <joe+gonzo.test@elsewhere.test>
detail-names-ours         <joe+betty@gonzo.test@elsewhere.test>
# The percent hack (RFC 1123 §5.2.16)
percent                   <joe%elsewhere.test@gonzo.test>
percent-literal           <joe%elsewhere.test@[192.0.2.25]>
percent-ipv6-literal      <joe%elsewhere.test@[IPv6:2001:db8::25]>
percent-localhost         <joe%elsewhere.test@localhost>
percent-subdomain         <joe%elsewhere.test@sub.gonzo.test>
percent-twice             <joe%elsewhere.test%gonzo.test@gonzo.test>
percent-chain             <joe%elsewhere.test%whizzer.test@gonzo.test>
percent-foreign-literal   <joe%[198.51.100.7]@gonzo.test>
percent-quoted            <"joe%elsewhere.test"@gonzo.test>
percent-quoted-user       <"joe"%elsewhere.test@gonzo.test>
percent-without-ours      <joe%elsewhere.test>
percent-at-nothing        <joe%elsewhere.test@>
percent-at-foreign        <joe%gonzo.test@elsewhere.test>
percent-hex-at            <joe%40elsewhere.test@gonzo.test>
percent-hex-at-alone      <joe%40elsewhere.test>
percent-percent           <joe%%elsewhere.test@gonzo.test>
percent-first             <%joe@gonzo.test>
percent-and-at            <joe%elsewhere.test@@gonzo.test>
percent-upper             <JOE%ELSEWHERE.TEST@GONZO.TEST>
percent-trailing-dot      <joe%elsewhere.test.@gonzo.test>
percent-ours-dot          <joe%elsewhere.test@gonzo.test.>
percent-idn               <joe%elsewhere.test@xn--mnchen-3ya.test>
percent-escaped           <joe\%elsewhere.test@gonzo.test>
percent-in-route          <@gonzo.test:joe%elsewhere.test@gonzo.test>
# Bang paths (RFC 976)
bang                      <elsewhere.test!joe@gonzo.test>
bang-without-ours         <elsewhere.test!joe>
bang-ours-first           <gonzo.test!elsewhere.test!joe>
bang-ours-at-foreign      <gonzo.test!joe@elsewhere.test>
bang-chain                <whizzer!elsewhere!joe@gonzo.test>
bang-literal              <elsewhere.test!joe@[192.0.2.25]>
bang-foreign-literal      <[198.51.100.7]!joe@gonzo.test>
bang-localhost            <elsewhere.test!joe@localhost>
bang-quoted               <"elsewhere.test!joe"@gonzo.test>
bang-and-percent          <elsewhere.test!joe%whizzer.test@gonzo.test>
bang-postmaster           <elsewhere.test!postmaster@gonzo.test>
bang-last                 <joe!@gonzo.test>
bang-first                <!joe@gonzo.test>
bang-subdomain            <elsewhere.test!joe@sub.gonzo.test>
bang-uucp-domain          <joe@elsewhere.uucp>
bang-in-domain            <joe@gonzo.test!elsewhere.test>
# Source routes (RFC 5321 §3.6.1, §C)
route-by-ours             <@gonzo.test:joe@elsewhere.test>
route-by-ours-twice       <@gonzo.test,@gonzo.test:joe@elsewhere.test>
route-by-ours-and-other   <@gonzo.test,@whizzer.test:joe@elsewhere.test>
route-by-other            <@whizzer.test:joe@elsewhere.test>
route-by-localhost        <@localhost:joe@elsewhere.test>
route-by-literal          <@[192.0.2.25]:joe@elsewhere.test>
route-by-ipv6-literal     <@[IPv6:2001:db8::25]:joe@elsewhere.test>
route-to-foreign-literal  <@gonzo.test:joe@[198.51.100.7]>
route-with-percent        <@elsewhere.test:joe%whizzer.test@gonzo.test>
route-with-bang           <@elsewhere.test:whizzer.test!joe@gonzo.test>
route-with-quoted-at      <@gonzo.test:"joe@elsewhere.test"@gonzo.test>
route-without-at          <gonzo.test:joe@elsewhere.test>
route-with-blank          <@gonzo.test: joe@elsewhere.test>
route-blank-comma         <@gonzo.test, @whizzer.test:joe@elsewhere.test>
route-double-colon        <@gonzo.test::joe@elsewhere.test>
route-colon-in-route      <@gonzo.test:@elsewhere.test:joe@gonzo.test>
route-empty               <@:joe@elsewhere.test>
route-comma-first         <,@gonzo.test:joe@elsewhere.test>
route-only                <@gonzo.test:>
route-to-bare             <@elsewhere.test:joe>
route-upper               <@GONZO.TEST:JOE@ELSEWHERE.TEST>
route-semicolon           <@gonzo.test;joe@elsewhere.test>
# Quoted local parts, and more than one at-sign
quoted-at                 <"joe@elsewhere.test"@gonzo.test>
quoted-at-literal         <"joe@elsewhere.test"@[192.0.2.25]>
quoted-at-localhost       <"joe@elsewhere.test"@localhost>
quoted-at-bare            <"joe@elsewhere.test">
quoted-brackets           <"<joe@elsewhere.test>"@gonzo.test>
quoted-escaped-at         <"joe\@elsewhere.test"@gonzo.test>
quoted-quotes             <"\"joe\"@elsewhere.test"@gonzo.test>
quoted-route              <"@elsewhere.test:joe"@gonzo.test>
quoted-comma              <"joe@elsewhere.test,"@gonzo.test>
quoted-list               <"joe@elsewhere.test,joe"@gonzo.test>
quoted-semicolon          <"joe@elsewhere.test;joe"@gonzo.test>
quoted-blank              <"joe @elsewhere.test"@gonzo.test>
quoted-blank-joe          <"joe joe@elsewhere.test"@gonzo.test>
quoted-foreign-user       <"joe"@elsewhere.test>
quoted-user-escaped       <"\j\o\e"@elsewhere.test>
quoted-comment            <"joe@elsewhere.test(joe)"@gonzo.test>
quoted-crlf-escape        <"joe\r\nRCPT TO:<joe@elsewhere.test>"@gonzo.test>
quoted-bang-percent       <"elsewhere.test!joe%whizzer.test"@gonzo.test>
quoted-empty              <""@elsewhere.test>
quoted-empty-ours         <""@gonzo.test>
quoted-unclosed           <"joe@elsewhere.test@gonzo.test>
quoted-half               <joe"@elsewhere.test"@gonzo.test>
two-ats-foreign-first     <joe@elsewhere.test@gonzo.test>
two-ats-foreign-last      <joe@gonzo.test@elsewhere.test>
three-ats                 <joe@gonzo.test@elsewhere.test@gonzo.test>
double-at                 <joe@@elsewhere.test>
at-only                   <@>
at-first                  <@elsewhere.test>
at-last                   <joe@elsewhere.test@>
escaped-at                <joe\@elsewhere.test@gonzo.test>
# Address literals
literal-foreign           <joe@[198.51.100.7]>
literal-foreign-ipv6      <joe@[IPv6:2001:db8::bad]>
literal-foreign-tagged    <joe@[IPv6:::ffff:198.51.100.7]>
literal-no-brackets       <joe@198.51.100.7>
literal-half-open         <joe@[198.51.100.7>
literal-half-closed       <joe@198.51.100.7]>
literal-number            <joe@[3325256711]>
literal-hash              <joe@#3325256711>
literal-hex               <joe@[0xc6.0x33.0x64.0x07]>
literal-octal             <joe@[0306.063.0144.07]>
literal-ours-octal        <joe@[192.0.2.025]>
literal-ours-short        <joe@[192.0.25]>
literal-ours-and-more     <joe@[192.0.2.25].elsewhere.test>
literal-ours-blank        <joe@[192.0.2.25 ]>
literal-loopback          <joe@[127.0.0.1]>
literal-loopback-ipv6     <joe@[IPv6:::1]>
literal-zero              <joe@[0.0.0.0]>
literal-zero-ipv6         <joe@[IPv6:::]>
literal-broadcast         <joe@[255.255.255.255]>
literal-untagged-ipv6     <joe@[2001:db8::25]>
literal-zone              <joe@[IPv6:fe80::1%eth0]>
literal-name              <joe@[elsewhere.test]>
literal-name-of-ours      <joe@[gonzo.test]>
literal-empty             <joe@[]>
literal-port              <joe@[198.51.100.7]:25>
literal-ours-port         <joe@[192.0.2.25]:25>
literal-other-tag         <joe@[x400:c=us]>
literal-neighbour         <joe@[192.0.2.26]>
# Domains that look like ours
ours-as-prefix            <joe@gonzo.test.elsewhere.test>
ours-as-suffix            <joe@evilgonzo.test>
ours-with-hyphen          <joe@gonzo-test>
ours-as-label             <joe@gonzo.test.test>
ours-unknown-subdomain    <joe@mx.gonzo.test>
ours-deep-subdomain       <joe@a.b.c.sub.gonzo.test>
ours-wildcard             <joe@*.gonzo.test>
ours-parent               <joe@gonzo>
ours-two-dots             <joe@gonzo..test>
ours-two-dots-last        <joe@gonzo.test..>
ours-dot-first            <joe@.gonzo.test>
ours-underscore           <joe@gonzo_test>
ours-blank                <joe@gonzo.test elsewhere.test>
ours-comma                <joe@gonzo.test,elsewhere.test>
ours-slash                <joe@gonzo.test/elsewhere.test>
ours-colon-port           <joe@gonzo.test:25>
ours-hash                 <joe@elsewhere.test#gonzo.test>
ours-question             <joe@elsewhere.test?gonzo.test>
ours-ampersand            <joe@elsewhere.test&gonzo.test>
ours-semicolon            <joe@elsewhere.test;gonzo.test>
ours-backslash            <joe@elsewhere.test\gonzo.test>
ours-pipe                 <joe@elsewhere.test|gonzo.test>
ours-percent-domain       <joe@elsewhere.test%gonzo.test>
ours-hex-dot              <joe@gonzo%2etest>
localhost-domain          <joe@localhost.elsewhere.test>
localhost-localdomain     <joe@localhost.localdomain>
localhost-subdomain       <joe@x.localhost>
# Letters that look alike, and names in other scripts
look-alike-o              <joe@gоnzo.test>
look-alike-fullwidth-dot  <joe@elsewhere．test@gonzo.test>
look-alike-fullwidth-at   <joe＠elsewhere.test@gonzo.test>
look-alike-small-at       <joe﹫elsewhere.test>
look-alike-percent        <joe％elsewhere.test@gonzo.test>
look-alike-accent         <joe@gónzo.test>
look-alike-zero-width     <joe@gonzo\xe2\x80\x8b.test>
look-alike-soft-hyphen    <joe@gonzo\xc2\xad.elsewhere.test>
look-alike-circled        <joe@ⓔⓛⓢⓔⓦⓗⓔⓡⓔ.test>
look-alike-rtl            <joe@\xe2\x80\xaetset.erehwesle>
idn-a-label-foreign       <joe@xn--elsewhre-i1a.test>
idn-a-label-of-ascii      <joe@xn--gonzo-.test>
idn-a-label-nonsense      <joe@xn--gonzo.test>
idn-a-label-neighbour     <joe@xn--mnchen-3yb.test>
idn-u-label-foreign       <joe@österreich.test>
idn-sub-of-ours           <joe@mx.xn--mnchen-3ya.test>
utf8-local-foreign        <jürgen@elsewhere.test>
utf8-overlong-at          <joe\xc1\x80elsewhere.test@gonzo.test>
utf8-broken               <joe\xff@elsewhere.test>
encoded-word              <=?utf-8?q?joe=40elsewhere.test?=@gonzo.test>
encoded-word-bare         <=?utf-8?q?joe=40elsewhere.test?=>
encoded-word-domain       <joe@=?utf-8?q?elsewhere.test?=>
utf7-at                   <joe+AEA-elsewhere.test>
ampersand-entity          <joe&#64;elsewhere.test@gonzo.test>
# Comments, names, lists and brackets
comment-before            <(gonzo)joe@elsewhere.test>
comment-in-local          <joe(@gonzo.test)@elsewhere.test>
comment-in-domain         <joe@(gonzo.test)elsewhere.test>
comment-behind            <joe@elsewhere.test(gonzo.test)>
comment-outside           <joe@elsewhere.test> (joe@gonzo.test)
name-and-address          "joe@gonzo.test" <joe@elsewhere.test>
two-addresses             <joe@gonzo.test,joe@elsewhere.test>
two-addresses-blank       <joe@gonzo.test joe@elsewhere.test>
two-paths                 <joe@gonzo.test> <joe@elsewhere.test>
two-paths-together        <joe@gonzo.test><joe@elsewhere.test>
two-paths-comma           <joe@gonzo.test>,<joe@elsewhere.test>
nested                    <<joe@elsewhere.test>>
nested-half               <<joe@gonzo.test>joe@elsewhere.test>
group                     <friends:joe@elsewhere.test;>
no-closing                <joe@elsewhere.test
no-opening                joe@elsewhere.test>
closing-first             >joe@elsewhere.test<
blank-inside              < joe@elsewhere.test >
blank-before-at           <joe @elsewhere.test>
blank-behind-at           <joe@ elsewhere.test>
mailto                    <mailto:joe@elsewhere.test>
smtp-prefix               <smtp:joe@elsewhere.test>
url                       <http://elsewhere.test/joe@gonzo.test>
x400                      </c=us/admd= /prmd=elsewhere/s=joe/@gonzo.test>
x400-semicolons           <c=us;p=elsewhere;s=joe@gonzo.test>
exchange-imceasmtp        <IMCEASMTP-joe+40elsewhere+2Etest@gonzo.test>
fax                       <"/FAX=5551234/"@gonzo.test>
# Files, programs and includes
program                   <|/usr/bin/mail@gonzo.test>
program-quoted            <"|/usr/sbin/sendmail joe@elsewhere.test"@gonzo.test>
program-blank             <"|mail joe@elsewhere.test">
file                      </etc/passwd@gonzo.test>
include                   <:include:/etc/passwd@gonzo.test>
include-quoted            <":include:/tmp/list"@gonzo.test>
backslash-user            <\joe@elsewhere.test>
backslash-quoted          <"\\joe@elsewhere.test"@gonzo.test>
error-agent               <error:elsewhere.test@gonzo.test>
dotdot                    <../../joe@gonzo.test>
# Controls, lengths and nothing
nul-in-local              <joe\x00@elsewhere.test>
nul-before-ours           <joe@elsewhere.test\x00@gonzo.test>
nul-behind-ours           <joe@gonzo.test\x00.elsewhere.test>
nul-quoted                <"joe@elsewhere.test\x00"@gonzo.test>
tab-in-domain             <joe@elsewhere.test\x09@gonzo.test>
tab-before                \x09<joe@elsewhere.test>
cr-in-domain              <joe@gonzo.test\x0d>joe@elsewhere.test>
lf-second-command         <joe@gonzo.test\x0aRCPT TO:<joe@elsewhere.test>
vertical-tab              <joe@gonzo.test\x0b@elsewhere.test>
escape                    <joe\x1b[2J@elsewhere.test>
delete                    <joe\x7f@elsewhere.test>
next-line                 <joe@elsewhere.test\xc2\x85@gonzo.test>
no-break-space            <joe@elsewhere.test\xc2\xa0@gonzo.test>
latin-1                   <j\xf6e@elsewhere.test>
nothing                   <>
no-argument
empty-domain              <joe@>
empty-local               <@gonzo.test>
dot-domain                <joe@.>
bare-foreign-name         <elsewhere.test>
bare-unknown              <nosuch>
unknown-user-of-ours      <nosuch@gonzo.test>
# Parameters
parameter-route           <joe@elsewhere.test> NOTIFY=NEVER
parameter-orcpt           <joe@elsewhere.test> ORCPT=rfc822;joe@gonzo.test
parameter-unknown         <joe@elsewhere.test> RELAY=YES
parameter-address         <joe@elsewhere.test> joe@gonzo.test
parameter-auth            <joe@elsewhere.test> AUTH=joe@gonzo.test
"""

LOCAL = r"""
plain                     <joe@gonzo.test>
upper-case                <JOE@GONZO.TEST>
trailing-dot              <joe@gonzo.test.>
quoted                    <"joe"@gonzo.test>
quoted-pairs              <"\j\o\e"@gonzo.test>
subdomain-of-ours         <joe@sub.gonzo.test>
localhost                 <joe@localhost>
literal                   <joe@[192.0.2.25]>
literal-ipv6              <joe@[IPv6:2001:db8::25]>
literal-ipv6-long         <joe@[ipv6:2001:0DB8:0:0:0:0:0:25]>
literal-mapped            <joe@[IPv6:::ffff:192.0.2.25]>
a-label                   <joe@xn--mnchen-3ya.test>
a-label-upper             <joe@XN--MNCHEN-3YA.TEST>
alias                     <betty@gonzo.test>
detail                    <joe+elsewhere.test@gonzo.test>
detail-percent            <joe+x%elsewhere.test@gonzo.test>
route-by-other            <@elsewhere.test:joe@gonzo.test>
route-by-several          <@elsewhere.test,@whizzer.test:joe@gonzo.test>
postmaster                <postmaster>
postmaster-quoted         <"Postmaster"@gonzo.test>
"""
