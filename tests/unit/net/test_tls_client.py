"""Contexts for connections to others, names in certificates, channel bindings."""

import hashlib
import os
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from postroom.net.tls_client import (
    ClientTls,
    TlsDemand,
    TlsFilesError,
    certificate_of,
    end_point_binding,
    make_context,
    matching_name,
    names_shown,
)
from postroom.testing.authority import Authority


def san(*names: str) -> Mapping[str, Any]:
    pairs = [("IP Address" if n[0].isdigit() or ":" in n else "DNS", n) for n in names]
    return {"subject": ((("commonName", "cn.test"),),), "subjectAltName": tuple(pairs)}


NAMES: dict[str, tuple[Mapping[str, Any], str, str]] = {
    "the name": (san("a.test"), "a.test", "a.test"),
    "case": (san("A.Test"), "a.test", "a.test"),
    "wildcard": (san("*.a.test"), "b.a.test", "*.a.test"),
    "wildcard, two labels": (san("*.a.test"), "c.b.a.test", ""),
    "wildcard, none": (san("*.a.test"), "a.test", ""),
    "wildcard of a whole top": (san("*.test"), "a.test", ""),
    "wildcard of all": (san("*"), "a.test", ""),
    "part of a label": (san("m*.a.test"), "mx.a.test", ""),
    "star within": (san("b.*.test"), "b.a.test", ""),
    "beneath": (san("x.a.test"), ".a.test", "x.a.test"),
    "deep beneath": (san("y.x.a.test"), ".a.test", "y.x.a.test"),
    "not beneath itself": (san("a.test"), ".a.test", ""),
    "the common name does not count": (san("a.test"), "cn.test", ""),
    "the common name counts alone": (
        {"subject": ((("commonName", "cn.test"),),)},
        "cn.test",
        "cn.test",
    ),
    "an address": (san("192.0.2.1"), "192.0.2.1", "192.0.2.1"),
    "an IPv6 address": (
        san("2001:DB8:0:0:0:0:0:1"),
        "2001:db8::1",
        "2001:DB8:0:0:0:0:0:1",
    ),
    "another IPv6 address": (san("2001:DB8:0:0:0:0:0:1"), "2001:db8::2", ""),
    "an address as a name": (
        {"subjectAltName": (("DNS", "192.0.2.9"),)},
        "192.0.2.1",
        "",
    ),
    "a NUL": (san("a.test\0.evil.test"), "a.test", ""),
    "nothing": ({}, "a.test", ""),
}


@pytest.mark.parametrize(
    ("certificate", "wanted", "found"), NAMES.values(), ids=NAMES.keys()
)
def test_names(certificate: Mapping[str, Any], wanted: str, found: str) -> None:
    assert matching_name(certificate, [wanted]) == found
    assert matching_name(certificate, ["other.test", wanted]) == found


def test_names_for_people() -> None:
    assert names_shown(san("a.test", "192.0.2.1")) == "a.test, 192.0.2.1"
    assert names_shown(san(*"abcdef")).endswith("e, ...")
    assert names_shown({}) == "nobody"
    assert len(names_shown(san("a" * 60_000, *"bcdef"))) < 200, (
        "it is kept in the queue"
    )


class Unreadable:
    """A session whose peer's certificate has a name that is no UTF-8."""

    def getpeercert(self) -> Mapping[str, Any]:
        raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")


def test_a_certificate_that_cannot_be_read_names_nobody() -> None:
    assert certificate_of(cast("ssl.SSLObject", Unreadable())) == {}
    assert certificate_of(None) == {}


async def test_contexts_are_kept_until_their_files_change(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    demand = TlsDemand(verify=True, ca_file=authority.ca_file)
    tls = ClientTls()
    first = await tls.context(demand)
    assert await tls.context(demand) is first
    assert first.verify_mode is ssl.CERT_REQUIRED
    assert first.minimum_version is ssl.TLSVersion.TLSv1_2
    other = Authority(tmp_path, "Other CA")
    os.rename(other.ca_file, authority.ca_file)
    assert await tls.context(demand) is not first
    assert await tls.context(TlsDemand()) is not first


@pytest.mark.parametrize("what", ["ca_file", "certificate", "key"])
def test_files_that_cannot_be_used(tmp_path: Path, what: str) -> None:
    authority = Authority(tmp_path)
    files = {
        "ca_file": authority.ca_file,
        "certificate": authority.issue("a.test"),
        what: str(tmp_path / "none"),
    }
    demand = msgspec.convert({"verify": True, **files}, TlsDemand)
    with pytest.raises(TlsFilesError, match="none cannot be used"):
        make_context(demand)


def test_channel_binding(tmp_path: Path) -> None:
    pem = Path(Authority(tmp_path).issue("a.test")).read_text()
    der = ssl.PEM_cert_to_DER_cert(pem[pem.index("-----BEGIN CERT") :])
    assert end_point_binding(der) == hashlib.sha256(der).digest()
    assert end_point_binding(b"no certificate") == b""
