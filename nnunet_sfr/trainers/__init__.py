"""The trainers by name, each imported only when it is asked for: nnU-Net also looks here for trainers of others."""

from __future__ import annotations

import re
from functools import cache
from importlib import import_module

_MODULES = {
    "MT": "mean_teacher",
    "ACMT": "ambiguity_consensus",
    "MagicNet": "magicnet",
    "ICT": "interpolation_consistency",
    "ST": "self_training",
}
"""The methods, each in a file of its own that defines it without and with (SFR) pseudo-labels."""

TRAINERS = {
    f"{prefix}_{method}": f"nnunet_sfr.trainers.{module}:{prefix}_{method}"
    for method, module in _MODULES.items()
    for prefix in ("nnUNetTrainer", "nnUNetTrainerSFR")
}
"""Where each trainer is defined, as ``module:class``."""

_WITH_EPOCHS = re.compile(r"(?P<trainer>.+)_(?P<epochs>[1-9][0-9]*)epochs")


def find_trainer(name: str) -> type | None:
    """The trainer of this name, or None if it is not one of ours.

    Args:
        name: a name in ``TRAINERS``, or one with the suffix ``_<N>epochs`` for any number N from 1.

    Returns:
        The class, the same one for the same name. With the suffix it is a subclass whose ``requested_epochs`` is N.
    """
    if name in TRAINERS:
        return _import(TRAINERS[name])
    match = _WITH_EPOCHS.fullmatch(name)
    if match is None or match["trainer"] not in TRAINERS:
        return None
    return _with_epochs(_import(TRAINERS[match["trainer"]]), int(match["epochs"]))


def _import(location: str) -> type:
    module, _, class_name = location.partition(":")
    trainer: type = getattr(import_module(module), class_name)
    return trainer


@cache
def _with_epochs(trainer: type, epochs: int) -> type:
    name = f"{trainer.__name__}_{epochs}epochs"
    # Pickle finds a class through its module: this one makes it again on request, in another process too.
    members = {
        "__doc__": f"{trainer.__name__} for {epochs} epochs.",
        "__module__": __name__,
        "__qualname__": name,
        "requested_epochs": epochs,
    }
    return type(trainer)(name, (trainer,), members)


def __getattr__(name: str) -> type:
    trainer = find_trainer(name)
    if trainer is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return trainer
