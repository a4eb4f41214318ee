"""TensorBoard beside the loggers of nnU-Net, for those who ask for it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nnunet_sfr.errors import UserError

TENSORBOARD_VARIABLE = "nnUNet_sfr_tensorboard_enabled"
"""1 or True asks for TensorBoard; 0, False and an unset variable do not."""
FOLDER = "tensorboard"
"""In the folder of the fold."""
END_OF_EPOCH = "epoch_end_timestamps"
"""What nnU-Net logs last in an epoch."""
_NOT_SHOWN = ("epoch_start_timestamps", END_OF_EPOCH)
_VALUES = {"0": False, "false": False, "1": True, "true": True}


def is_wanted() -> bool:
    """Whether the variable asks for TensorBoard.

    Raises:
        UserError: its value means nothing.
    """
    text = os.environ.get(TENSORBOARD_VARIABLE, "0")
    if text.lower() not in _VALUES:
        raise UserError(f"the variable {TENSORBOARD_VARIABLE} is {text!r}; set it to 0 or 1")
    return _VALUES[text.lower()]


class TensorBoardLogger:
    """One of the loggers to which nnU-Net's ``MetaLogger`` hands every value.

    A resumed training continues in the same folder; what was written of epochs that are computed again is hidden.

    Args:
        output_folder: of the fold.

    Raises:
        UserError: TensorBoard is not installed.
    """

    def __init__(self, output_folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise UserError(
                f"the variable {TENSORBOARD_VARIABLE} asks for TensorBoard, which is not installed; run pip install "
                "tensorboard, or unset the variable"
            ) from None
        self._open = lambda step: SummaryWriter(str(output_folder / FOLDER), purge_step=step)
        self._writer: Any = None
        self._step = 0

    def update_config(self, config: Mapping[str, Any]) -> None:
        """nnU-Net's plans and hyperparameters lie in files of their own and are not repeated."""

    def log(self, key: str, value: Any, step: int) -> None:
        """One number of an epoch.

        Args:
            key: nnU-Net's name of it, or ours.
            value: a number.
            step: the epoch.
        """
        if self._writer is None:
            self._writer = self._open(step)
        self._step = step
        if key not in _NOT_SHOWN:
            self._writer.add_scalar(key, value, step)
        if key == END_OF_EPOCH:
            self._writer.flush()

    def log_summary(self, key: str, value: Any) -> None:
        """One number of the whole training.

        Args:
            key: nnU-Net's name of it.
            value: whatever is no number is left out.
        """
        if self._writer is not None and isinstance(value, (int, float)):
            self._writer.add_scalar(key, value, self._step)
            self._writer.flush()
