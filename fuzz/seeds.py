"""Makes the first octets of every corpus, of transcripts and tables: ``fuzz.seeds``.

What fuzzers found later is put beside them by hand, once it was made small. Files are
named by what is in them, so that the same octets are there once.
"""

import re
from collections.abc import Iterable, Iterator
from hashlib import sha256
from pathlib import Path

from fuzz.tables import QUERIES, seed_of
from fuzz.targets import CORPUS, TARGETS
from postroom.testing.corpus import read_sample
from postroom.testing.lies import replies
from postroom.testing.transcript import Transcript, Who
from postroom.testing.zone import Lie, Zone

ROOT = Path(__file__).parent.parent
SEEDS_MAX = 40
"""Seeds of one target: enough to begin with, few enough to be looked through."""

PROXIES = [
    b"PROXY TCP4 192.0.2.1 192.0.2.25 4242 25\r\nEHLO c.example\r\n",
    b"PROXY TCP6 2001:db8::1 2001:db8::25 4242 25\r\n",
    b"PROXY UNKNOWN\r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.25 042 99999\r\n",
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + bytes([192, 0, 2, 1, 192, 0, 2, 25])
    + b"\x10\x92\0\x19",
    b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0",
    b"\r\n\r\n\0\r\nQUIT\n\x21\x21\0\x24" + bytes(36),
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x10" + bytes(12) + b"\x04\0\x01\0",
]  # fmt: skip
SASL = [
    b"\x00n,,n=joe,r=abc\xfec=biws,r=abcnonce,p=" + b"A" * 43 + b"=",
    b"\x01p=tls-server-end-point,,n=joe,r=abc\xfec=cD10bHM=,r=abcnonce,p=AAAA",
    b"\x02joe@gonzo.test",
    b"\x03n,a=joe,\x01auth=Bearer token\x01\x01",
    b"\x03y,,\x01host=gonzo.test\x01port=25\x01auth=Bearer x\x01\x01\xfe\x01",
    b"\x04user=joe\x01auth=Bearer token\x01\x01",
    b"\x05\0joe\0secret",
    b"\x05joe\0joe\0wrong",
    b"\x06joe\xfesecret",
    b"\x86\xfejoe\xfesecret",
    b"\x07joe 0123456789abcdef0123456789abcdef",
]
CHALLENGES = [
    b"\x00r=nonceabc,s=AAAA,i=4096\xfev=" + b"A" * 43 + b"=",
    b"\x01r=nonceabc,s=AAAA,i=4096\xfee=invalid-proof",
    b"\x01r=other,s=AAAA,i=4096",
    b"\x02\xfe",
    b'\x03{"status":"invalid_token"}',
    b"\x06Username:\xfePassword:",
    b"\x07<1@mx.example>",
]
TOKENS = [
    b'{"keys":[]}',
    b'{"keys":[{"kty":"RSA","kid":"1","n":"AQAB","e":"AQAB","alg":"RS256"}]}',
    b'{"keys":[{"kty":"EC","crv":"P-256","x":"AA","y":"AA"}]}',
    b'{"keys":[{"kty":"OKP","crv":"Ed25519","x":"' + b"A" * 43 + b'"}]}',
    b'{"alg":"RS256","kid":"1"}',
    b'{"iss":"https://issuer.test","aud":["gonzo.test"],"exp":1795001000,"sub":"joe"}',
    b'{"exp":1e400,"nbf":"x"}',
    b"eyJhbGciOiJub25lIn0.eyJzdWIiOiJqb2UifQ.",
]


MIXED = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n"
PART = b"--b\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nsch\xc3\xb6n\r\n"
LETTERS = [
    b"Subject: s\r\n\r\nsch\xc3\xb6n\r\n",
    b"Subject: s\r\n\r\n" + bytes(range(128, 256)) + b"\r\n",
    b"Subject: s\r\n\r\n" + b"long " * 250 + b"\r\n.\r\n",
    b"H: x\r\n\r\na\0b\r\n",
    MIXED + PART + PART + b"--b--\r\n",
    MIXED + b"preamble \xff\r\n" + PART + b"--b-- \r\nepilogue \xff\r\n",
    MIXED
    + b"--b\r\n"
    + MIXED.replace(b"=b", b'="c d"')
    + b"--c d\r\n\r\n\xff\r\n--b--",
    MIXED
    + b"--b\r\nContent-Type: message/rfc822\r\n\r\nSubject: x\r\n\r\n\xfc\r\n--b--",
    MIXED.replace(b"mixed", b"signed") + PART + b"--b--\r\n",
    b"Content-Transfer-Encoding: 8bit\r\nContent-Type: text/html\r\n\r\n<p>\xe4\r\n",
    b"Content-Transfer-Encoding: base64\r\n\r\n/////w==\r\n",
]


ALIASES = [
    b"# comment\npostmaster: betty\nfriends: betty,\n\tjoe@whizzer.test, \\ann\n",
    b'prog: "|/bin/cat >/tmp/x, y"\nfile: /var/mail/x\nnobody: /dev/null\n',
    b"list: :include:/etc/lists/a\nowner-list: betty\nlist+*: joe\n",
    b'"quoted": Joe (a comment) <joe@whizzer.test>, "j o e"@whizzer.test\r\n',
    b"a: b,\\\nc\nd:\n  e\n",
    b"broken\n",
    b"a: @x,@y:z@[IPv6:::1]\na: twice\n",
    "zo\u00eb: \u00fc@b\u00fccher.test\n".encode(),
]
ZONE = """
a.test. MX 10 mx.a.test.
a.test. MX 20 a\\.b.test.
a.test. A 192.0.2.1
a.test. AAAA 2001:db8::1
a.test. TXT "v=spf1 " "-all"
a.test. PTR host.test.
"""


def main() -> None:
    """Write the seeds of every target, leaving what else is there."""
    for name in TARGETS:
        directory = CORPUS / name
        directory.mkdir(parents=True, exist_ok=True)
        for seed in thinned(dict.fromkeys(seeds(name))):
            (directory / sha256(seed).hexdigest()[:12]).write_bytes(seed)


def thinned(seeds: Iterable[bytes]) -> list[bytes]:
    """Take every n-th of many."""
    all_of = list(seeds)
    step = -(-len(all_of) // SEEDS_MAX)
    return all_of[::step]


def transcripts() -> list[Transcript]:
    paths = sorted((ROOT / "tests/transcripts").glob("*.smtp"))
    return [Transcript.from_file(path) for path in paths]


def said(who: Who) -> Iterator[bytes]:
    for transcript in transcripts():
        for step in transcript.steps:
            if step.who is who and len(step.octets) < 600:
                yield step.octets


def messages() -> Iterator[bytes]:
    for message in read_sample():
        if len(message.content) < 3000:
            yield message.content


def spellings() -> Iterator[bytes]:
    for name in ("foreign.txt", "ours.txt"):
        for line in (ROOT / "tests/spellings" / name).read_bytes().splitlines():
            if found := re.search(rb"<(.*)>", line):
                yield found[1]


def dns_answers() -> Iterator[bytes]:
    """Yield what the test's name server says, true and false, to each question."""
    zones = [Zone.from_text(ZONE), Zone.from_text("")]
    zones += [Zone.from_text(f"a.test. LIE {lie.value}") for lie in Lie]
    for zone in zones:
        for kind, query in QUERIES.items():
            for wire in replies(zone, query.wire, tcp=False):
                if wire[:2] == query.wire[:2] and query.question in wire:
                    yield seed_of(kind, wire)


def seeds(name: str) -> Iterator[bytes]:
    """Yield what a target begins with."""
    match name:
        case "commands":
            yield from (b"\x02" + line.rstrip() for line in said(Who.CLIENT))
        case "parameters":
            for line in said(Who.CLIENT):
                if found := re.match(rb"(?:MAIL|RCPT) [^>]*> +(.*)\r\n", line):
                    yield found[1]
        case "addresses":
            yield from spellings()
        case "session":
            for one in transcripts():
                lines = [s.octets for s in one.steps if s.who is Who.CLIENT]
                yield bytes([one.rules.count(("lmtp", "")), 7]) + b"".join(lines)
        case "replies" | "client":
            size = b"\x07" if name == "client" else b""
            for one in transcripts():
                lines = [s.octets for s in one.steps if s.who is Who.SERVER]
                yield size + b"\r\n".join(lines[:9]) + b"\r\n"
        case "content" | "chunks":
            size = b"\x02\x05" if name == "chunks" else b"\x05"
            for one in transcripts():
                yield from (size + message for message in one.messages)
        case "proxy":
            yield from PROXIES
        case "headers" | "completion":
            yield from (one[:1200] for one in messages())
        case "address-lists":
            for message in messages():
                values = re.findall(rb"(?mi)^(?:from|to|cc|reply-to): *(.*)$", message)
                yield from (value[:200] for value in values)
        case "conversion":
            yield from (b"\0" + one for one in LETTERS)
            yield from (b"\0" + one for one in messages() if b"\n--" in one)
        case "sasl":
            yield from SASL
        case "sasl-client":
            yield from CHALLENGES
        case "tokens":
            yield from TOKENS
        case "dns-answers":
            yield from dns_answers()
        case "aliases":
            yield from ALIASES


if __name__ == "__main__":
    main()
