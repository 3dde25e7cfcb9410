"""The tables of one shard, their version, and the steps from one version to the next.

``messages`` holds envelopes, ``recipients`` what is still owed to whom, ``bodies`` the
content. They are apart so that settling a recipient never rewrites a body. A body is
counted by its references: ``messages.body`` names it, and it goes with the last message
that does. On failure nothing is changed and ``SchemaError`` says why.
"""

import apsw

APPLICATION_ID = 0x506F7374  # "Post"
SCHEMA_VERSION = 2

PAGE_OCTETS = 4096
"""Measured: a 4 KiB message costs 18 µs at 4 KiB pages, 20 at 8 or 16, 22 at 32."""


class SchemaError(Exception):
    """The file is no spool, or of a version this program does not know."""


_SCHEMA_1 = """
CREATE TABLE shard(
    id INTEGER PRIMARY KEY CHECK(id = 1),
    number INTEGER NOT NULL,
    generation INTEGER NOT NULL
) STRICT;

CREATE TABLE counters(
    id INTEGER PRIMARY KEY CHECK(id = 1),
    messages INTEGER NOT NULL DEFAULT 0,
    recipients INTEGER NOT NULL DEFAULT 0,
    octets INTEGER NOT NULL DEFAULT 0,
    ready INTEGER NOT NULL DEFAULT 0,
    expanding INTEGER NOT NULL DEFAULT 0,
    held INTEGER NOT NULL DEFAULT 0,
    shunted INTEGER NOT NULL DEFAULT 0,
    last_number INTEGER NOT NULL DEFAULT 0
) STRICT;
INSERT INTO counters(id) VALUES(1);

CREATE TABLE messages(
    id INTEGER PRIMARY KEY,
    body INTEGER NOT NULL,
    size INTEGER NOT NULL,
    arrival INTEGER NOT NULL,
    sender TEXT NOT NULL,
    message_id TEXT NOT NULL,
    given INTEGER NOT NULL,
    next_number INTEGER NOT NULL,
    warned INTEGER NOT NULL,
    crashes INTEGER NOT NULL,
    body_type TEXT NOT NULL,
    declared_size INTEGER NOT NULL,
    smtputf8 INTEGER NOT NULL,
    ret TEXT NOT NULL,
    envid TEXT NOT NULL,
    auth TEXT NOT NULL,
    requiretls INTEGER NOT NULL,
    deliver_by TEXT NOT NULL,
    hold_until INTEGER NOT NULL,
    priority INTEGER NOT NULL,
    protocol TEXT NOT NULL,
    client_ip TEXT NOT NULL,
    client_port INTEGER NOT NULL,
    client_name TEXT NOT NULL,
    helo TEXT NOT NULL,
    login TEXT NOT NULL,
    listener TEXT NOT NULL,
    edits BLOB NOT NULL
) STRICT;
-- Only second envelopes are indexed, so that an ordinary message pays nothing.
CREATE INDEX messages_sharing ON messages(body) WHERE body <> id;

CREATE INDEX messages_crashed ON messages(id) WHERE crashes > 0;

CREATE TABLE bodies(
    id INTEGER PRIMARY KEY,
    has_separator INTEGER NOT NULL,
    size INTEGER NOT NULL,
    file TEXT,
    header BLOB NOT NULL,
    content BLOB
) STRICT;

CREATE TABLE recipients(
    message INTEGER NOT NULL,
    number INTEGER NOT NULL,
    state INTEGER NOT NULL,
    hop TEXT NOT NULL,
    lane INTEGER NOT NULL,
    due INTEGER NOT NULL,
    tries INTEGER NOT NULL,
    last INTEGER NOT NULL,
    cursor INTEGER NOT NULL,
    parent INTEGER NOT NULL,
    address TEXT NOT NULL,
    agent TEXT NOT NULL,
    rule TEXT NOT NULL,
    status_text TEXT NOT NULL,
    notify TEXT NOT NULL,
    orcpt TEXT NOT NULL,
    PRIMARY KEY(message, number)
) STRICT, WITHOUT ROWID;
-- What is READY (0) or EXPANDING (1) is asked for by destination; the rest waits.
CREATE INDEX recipients_due ON recipients(hop, lane, due) WHERE state < 2;
-- By this the children of an expansion are kept unique.
CREATE INDEX recipients_children ON recipients(message, address) WHERE parent >= 0;
"""

_SCHEMA_2 = """
-- One row for each hop that is left alone: its mail stays as it is meanwhile.
CREATE TABLE rests(
    hop TEXT PRIMARY KEY,
    until INTEGER NOT NULL,
    status TEXT NOT NULL,
    text TEXT NOT NULL
) STRICT, WITHOUT ROWID;
"""

_UPGRADES: dict[int, str] = {0: _SCHEMA_1, 1: _SCHEMA_2}
"""From each version the statements that lead to the next."""


def prepare(connection: apsw.Connection, shard: int, generation: int) -> int:
    """Make or upgrade the tables, and begin a new generation, in one transaction.

    Returns:
        The generation now in force: ``generation``, if it is larger than that of the
        last holder, else one more than that.

    Raises:
        SchemaError: the file is foreign, newer than this program, or another shard's.
    """
    version = _checked_version(connection)
    with connection:
        for step in range(version, SCHEMA_VERSION):
            connection.execute(_UPGRADES[step])
        connection.pragma("application_id", APPLICATION_ID)
        connection.pragma("user_version", SCHEMA_VERSION)
        connection.execute(
            "INSERT INTO shard VALUES(1, ?1, max(1, ?2)) ON CONFLICT(id)"
            " DO UPDATE SET generation = max(generation + 1, ?2)",
            (shard, generation),
        )
        row = connection.execute("SELECT number, generation FROM shard").get
        number, in_force = row
        if number != shard:
            raise SchemaError(f"this is shard {number}, not {shard}: do not rename it")
    return int(in_force)


def check(connection: apsw.Connection) -> None:
    """Check that a shard can be read as it is, changing nothing.

    Raises:
        SchemaError: it is foreign, or must be upgraded (opened for change) first.
    """
    if _checked_version(connection) != SCHEMA_VERSION:
        raise SchemaError("this spool is of an older version: start the server once")


def _checked_version(connection: apsw.Connection) -> int:
    application = connection.pragma("application_id")
    version = int(connection.pragma("user_version"))
    if application not in (0, APPLICATION_ID):
        raise SchemaError("this SQLite file is no Postroom spool")
    if version > SCHEMA_VERSION:
        raise SchemaError(
            f"this spool has version {version}, newer than {SCHEMA_VERSION}"
        )
    return version
