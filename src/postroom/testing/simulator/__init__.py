"""A mail system in virtual time: the real schedule, with a model of all around it.

The scheduler, the grades, the lanes, the retry rules and the shared counters are those
of the product. Queue, connections, peers and the passing of time are models: days pass
in seconds, and the same seed gives the same day. ``make simulate`` runs the scenarios.
"""
