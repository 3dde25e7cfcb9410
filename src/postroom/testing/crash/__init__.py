"""Proof that the spool loses nothing: crashes and faults at every operation."""
