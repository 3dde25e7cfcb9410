"""Delivery agents: each hands one attempt to its destination."""
