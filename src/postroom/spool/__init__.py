"""The queue on disk, which loses nothing."""
