"""The configuration: TOML into frozen values, and what is unsafe about them."""
