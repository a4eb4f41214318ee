"""Where nnU-Net looks up our trainers: it asks this module for a class by name.

nnU-Net forgets the module after each search, so nothing is defined here; the classes live on in ``nnunet_sfr``.
"""

from __future__ import annotations

from nnunet_sfr.trainers import find_trainer


def __getattr__(name: str) -> type:
    trainer = find_trainer(name)
    if trainer is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return trainer
