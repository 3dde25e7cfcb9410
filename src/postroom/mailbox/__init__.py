"""Mailboxes on disk: Maildir and mbox, their locks and index."""
