"""Bounds on table files; a file over one of them is refused as a whole."""

import msgspec

from postroom.mail.units import Size


class TableSettings(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True
):
    """How large table files may be."""

    file_octets_max: Size = Size(64 << 20)
    """Octets of one file."""

    entries_max: int = 1_000_000
    """Keys of one file; also the targets of all its aliases together."""

    line_octets_max: Size = Size(4 << 20)
    """Octets of one entry, its continuation lines included."""
