"""Limits: rates, concurrency windows, and the counters that all workers share."""
