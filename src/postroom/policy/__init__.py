"""Decisions of the site and of the built-in guards, as hooks."""
