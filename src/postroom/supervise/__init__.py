"""The supervisor: binds sockets, starts workers and watches them."""
