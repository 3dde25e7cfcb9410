"""The root helper: does for workers the one thing that needs root, asking PAM."""
