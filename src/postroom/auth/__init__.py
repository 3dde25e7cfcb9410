"""Who may log in: the users file, password checks, and SCRAM."""
