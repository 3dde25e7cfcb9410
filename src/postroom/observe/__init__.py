"""What happened, as typed events; how they are written; where they go."""
