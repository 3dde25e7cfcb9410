"""Where mail goes: rewriting, aliases, routing. Pure generators."""
