"""The trainers by name, each imported only when it is asked for: nnU-Net also looks here for trainers of others."""

from __future__ import annotations

import re
from functools import cache
from importlib import import_module

from nnunet_sfr.trainers.methods import METHODS

TRAINERS = {
    f"{prefix}_{method.name}": f"nnunet_sfr.trainers.{method.module}:{prefix}_{method.name}"
    for method in METHODS.values()
    for prefix in ("nnUNetTrainer", "nnUNetTrainerSFR")
}
"""Where each trainer is defined, as ``module:class``."""

ROUND_TRAINERS = {
    f"nnUNetTrainerSFRPlus_{method.name}": f"nnunet_sfr.trainers.{method.module}:nnUNetTrainerSFRPlus_{method.name}"
    for method in METHODS.values()
}
"""Those that continue another training: the later rounds of SFR+. The first of them has no suffix."""

_NAME = re.compile(r"(?P<trainer>.+?)(_round(?P<round>[2-9]|[1-9][0-9]+))?(_(?P<epochs>[1-9][0-9]*)epochs)?")


def find_trainer(name: str) -> type | None:
    """The trainer of this name, or None if it is not one of ours.

    Args:
        name: a name in ``TRAINERS`` or ``ROUND_TRAINERS``; the latter with the suffix ``_round<r>`` for any round from
            2, and all with the suffix ``_<N>epochs`` for any number N from 1.

    Returns:
        The class, the same one for the same name. With a suffix it is a subclass whose ``round_index`` is r, or whose
        ``requested_epochs`` is N.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    location = ROUND_TRAINERS.get(match["trainer"])
    if location is None and match["round"] is None:
        location = TRAINERS.get(match["trainer"])
    if location is None:
        return None
    trainer = _import(location)
    if match["round"] is not None:
        trainer = _variant(trainer, f"round{match['round']}", "round_index", int(match["round"]))
    if match["epochs"] is not None:
        trainer = _variant(trainer, f"{match['epochs']}epochs", "requested_epochs", int(match["epochs"]))
    return trainer


def _import(location: str) -> type:
    module, _, class_name = location.partition(":")
    trainer: type = getattr(import_module(module), class_name)
    return trainer


@cache
def _variant(trainer: type, suffix: str, attribute: str, value: int) -> type:
    name = f"{trainer.__name__}_{suffix}"
    # Pickle finds a class through its module: this one makes it again on request, in another process too.
    members = {
        "__doc__": f"{trainer.__name__} with {attribute} {value}.",
        "__module__": __name__,
        "__qualname__": name,
        attribute: value,
    }
    return type(trainer)(name, (trainer,), members)


def __getattr__(name: str) -> type:
    trainer = find_trainer(name)
    if trainer is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return trainer
