"""Tells nnU-Net where our trainers are, at the start of every Python process.

The ``.pth`` file that is installed beside this package calls ``announce_trainers`` before anything else runs, so
nnU-Net's own commands and the processes they start find ``nnUNetTrainerSFR_*`` with no variable to set. Every Python
start of the environment pays for this module: it imports nothing but ``os``, which Python has loaded by then.
"""

import os

TRAINER_PATH_VARIABLE = "nnUNet_extTrainer"
"""nnU-Net (2.8 and later) looks for trainers in the folders that it lists, separated by ``os.pathsep``."""

PLUGIN_FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "nnunet_plugin")
"""The folder to list, for those who set the variable by hand."""


def announce_trainers() -> None:
    """Add our folder to ``nnUNet_extTrainer``, once, behind the folders that the user has set."""
    folders = os.environ.get(TRAINER_PATH_VARIABLE, "")
    if PLUGIN_FOLDER in (os.path.normpath(folder) for folder in folders.split(os.pathsep)):
        return
    os.environ[TRAINER_PATH_VARIABLE] = folders + os.pathsep + PLUGIN_FOLDER if folders else PLUGIN_FOLDER
