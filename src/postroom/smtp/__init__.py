"""SMTP and LMTP without I/O: one state table, a server, a client, and their grammar."""
