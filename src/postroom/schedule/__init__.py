"""The schedule: what is tried next, how much at once, and when again. Pure."""
