"""POP3 (RFC 1939, RFC 2449, RFC 3206) as pure code: bytes in, events and bytes out."""
