"""Sockets, streams, clocks: the only rooms that touch the network."""
