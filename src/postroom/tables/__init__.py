"""Tables that people write: text files and aliases, read whole, replaced whole."""
