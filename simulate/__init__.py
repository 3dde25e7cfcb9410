"""Shows how the schedule behaves, in virtual time: ``make simulate``."""
