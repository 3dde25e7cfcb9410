"""Spreading times apart, so that what failed together does not come back together.

Pure: the same seed and salt give the same answer.
"""

_MASK = (1 << 64) - 1


def mix(seed: int, salt: int) -> int:
    """Return 64 well-mixed bits (the SplitMix64 finaliser)."""
    z = (seed + (salt + 1) * 0x9E3779B97F4A7C15) & _MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return z ^ (z >> 31)


def spread(length_us: int, percent: int, seed: int, salt: int) -> int:
    """Return a length within ``percent`` above or below ``length_us``."""
    width = length_us * percent // 100
    if width <= 0:
        return length_us
    return length_us - width + mix(seed, salt) % (2 * width + 1)
