"""What a site may set about the spool. Sizes are octets."""

import msgspec

from postroom.mail.units import Size


class SpoolSettings(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True
):
    """The table ``[spool]`` of the configuration."""

    directory: str = "/var/spool/postroom"
    """Where the shards lie: a local file system, owned by the service user."""

    body_memory_octets_max: Size = Size(128 << 10)
    """Bodies up to this size lie in the database, larger ones in files of their own."""

    reserve_octets: Size = Size(256 << 20)
    """Space that is never filled by new mail, so that the queue can always drain. At
    least as much as the logs of all workers may take (``wal_octets_max`` each)."""

    reserve_inodes: int = 1_000
    """The same for inodes; not asked of file systems that do not count them."""

    group_messages_max: int = 512
    """How many changes one transaction may gather."""

    group_octets_max: Size = Size(8 << 20)
    """How many octets of new bodies one transaction may gather."""

    wal_octets_max: Size = Size(32 << 20)
    """At this size the write-ahead log is copied back into the database."""

    free_octets_max: Size = Size(16 << 20)
    """Unused space in the database above this goes back to the file system."""

    cache_octets: Size = Size(16 << 20)
    """Memory for database pages, for the writer and for the reader each."""

    recipients_per_lease_max: int = 100
    """How many recipients of one message are tried together (RFC 5321 §4.5.3.1.8)."""

    claim_octets_max: Size = Size(8 << 20)
    """How many octets of bodies one claim may bring into memory."""

    crashes_max: int = 3
    """A message in hand at this many crashes of its worker is put aside."""
