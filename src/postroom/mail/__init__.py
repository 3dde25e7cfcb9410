"""The nine nouns that carry everything, and what is made of them. All pure."""
