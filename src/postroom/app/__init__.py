"""The worker's composition root: the only package that knows all stages."""
