"""``postroom check`` of certificates, keys and proxies, as the supervisor sees them."""

import os
import pwd
from contextlib import suppress

from postroom.config.findings import Findings, problem, warning
from postroom.config.settings import Config
from postroom.net.clock import read_now
from postroom.net.keys import Keys, ServerTls


def tls_findings(config: Config) -> Findings:
    """Read every certificate and key, and say what is wrong with it."""
    tls = config.tls
    if tls.self_signed:
        yield warning(
            "tls.self_signed: clients cannot know that we are who we say, and those "
            "that look will refuse us: get a certificate and name it in "
            "[[tls.certificate]]"
        )
    elif tls.certificate and _only_root_can_tell(config):
        yield warning(
            "tls.certificate: whether root can read the keys only root can tell: run "
            "the check as root"
        )
    else:
        yield from _certificate_findings(config)
    if "smtp" in tls.client_certificate_services and tls.client_certificates != "off":
        yield warning(
            "tls.client_certificate_services: other mail servers show whatever "
            'certificate they have, and are turned away: take "smtp" out'
        )


def _certificate_findings(config: Config) -> Findings:
    # Loading that library takes a while: only where there is a certificate.
    from postroom.net.certificates import (
        CertificateError,
        covers,
        expiry_text,
        read_client_ca,
        read_pair,
    )

    tls, owners, pairs = config.tls, _owners(config), []
    ca, now_us = "", read_now().utc_us
    for index, one in enumerate(tls.certificate):
        try:
            pair = read_pair(one, owners)
        except CertificateError as error:
            yield problem(f"tls.certificate[{index}]: {error}")
            continue
        pairs.append(pair)
        if text := expiry_text(pair, now_us, tls.expiry_warning):
            is_over = pair.until_us <= now_us
            yield (problem if is_over else warning)(f"tls.certificate[{index}]: {text}")
    if tls.client_ca:
        try:
            ca = read_client_ca(tls.client_ca)
        except CertificateError as error:
            yield problem(f"tls.client_ca: {error}")
            return
    if len(pairs) < len(tls.certificate) or not pairs:
        return
    try:
        ServerTls(tls, Keys(tuple(pairs), ca))
    except ValueError as error:
        yield problem(f"tls: {error}")
    names = [name for pair in pairs for name in pair.names]
    if not covers(names, config.hostname):
        yield warning(
            f"tls.certificate: none is for {config.hostname}, the name this host goes "
            f"by, but for {', '.join(names[:5]) or 'no name at all'}: clients that "
            "look will refuse it"
        )


def _only_root_can_tell(config: Config) -> bool:
    """Whether we are not the one who will read the keys."""
    user = config.process.user
    if os.geteuid() == 0 or not user:
        return False
    try:
        return pwd.getpwnam(user).pw_uid != os.geteuid()
    except KeyError:
        return False


def _owners(config: Config) -> set[int]:
    owners = {0, os.geteuid()}
    with suppress(KeyError):  # another finding says so
        owners.add(pwd.getpwnam(config.process.user).pw_uid)
    return owners
