"""Real mail programs beside ours, in both directions: ``make interop``."""
