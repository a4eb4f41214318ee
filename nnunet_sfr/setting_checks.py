"""Checks that settings share; each raises a ValueError that names the setting and the value that it got."""

from __future__ import annotations

SEEDS = 2**32
"""NumPy's generators take seeds below it."""


def require(condition: bool, message: str) -> None:
    """Raise a ValueError with the message unless the condition holds.

    Args:
        condition: that has to hold.
        message: of the error.
    """
    if not condition:
        raise ValueError(message)


def require_fraction(name: str, value: float) -> None:
    """A share, 0 and 1 included.

    Args:
        name: of the setting.
        value: to check.
    """
    require(0.0 <= value <= 1.0, f"{name} must lie between 0 and 1, got {value}")


def require_below_one(name: str, value: float) -> None:
    """A share, 0 included and 1 not.

    Args:
        name: of the setting.
        value: to check.
    """
    require(0.0 <= value < 1.0, f"{name} must lie in [0, 1), got {value}")


def require_at_least(name: str, value: float, least: float) -> None:
    """A number from ``least`` on.

    Args:
        name: of the setting.
        value: to check.
        least: allowed.
    """
    require(value >= least, f"{name} must be at least {least}, got {value}")


def require_positive(name: str, value: float) -> None:
    """A number above 0.

    Args:
        name: of the setting.
        value: to check.
    """
    require(value > 0, f"{name} must be positive, got {value}")


def require_seed(seed: int) -> None:
    """A seed that NumPy's generators take."""
    require(0 <= seed < SEEDS, f"seed must lie between 0 and {SEEDS - 1}, got {seed}")
