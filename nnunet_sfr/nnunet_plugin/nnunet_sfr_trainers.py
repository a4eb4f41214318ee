"""Where nnU-Net looks up our trainers: it asks this module for a class by name.

nnU-Net forgets the module after each search, so nothing is defined here; the classes live on in ``nnunet_sfr``.
"""

from __future__ import annotations

import os

from nnunet_sfr.environment import PLUGIN_FOLDER, TRAINER_PATH_VARIABLE
from nnunet_sfr.trainers import find_trainer


def __getattr__(name: str) -> type:
    trainer = find_trainer(name)
    if trainer is not None:
        return trainer
    if name.lower().startswith("nnunettrainer") and name != "nnUNetTrainer" and _is_searched_last():
        from nnunet_sfr.trainers.misspelt import explanation

        if text := explanation(name):
            raise SystemExit(f"error: {text}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _is_searched_last() -> bool:
    """Whether no folder of others is still to be searched for the name."""
    folders = [folder for folder in os.environ.get(TRAINER_PATH_VARIABLE, "").split(os.pathsep) if folder.strip()]
    return bool(folders) and os.path.normpath(folders[-1]) == PLUGIN_FOLDER
