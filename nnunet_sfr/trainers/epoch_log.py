"""The curves of a semi-supervised training: one mean per epoch and term, in nnU-Net's log and in a picture."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.collate_outputs import collate_outputs
from torch import distributed

from nnunet_sfr.errors import exit_on_user_error
from nnunet_sfr.trainers import tensorboard
from nnunet_sfr.trainers.loss_plot import plot_losses
from nnunet_sfr.trainers.sequential_backward import to_number


class EpochLog(nnUNetTrainer):
    """nnU-Net's trainer that logs :attr:`logged_terms` too, as its training step returns them.

    They go where nnU-Net's own values go (its log in the checkpoint, Weights & Biases where it is on), and to
    TensorBoard if :data:`tensorboard.TENSORBOARD_VARIABLE` asks for it.
    """

    @property
    def logged_terms(self) -> tuple[str, ...]:
        """What :meth:`train_step` returns besides the loss; means over an epoch go into nnU-Net's logger."""
        return ()

    def initialize(self) -> None:
        super().initialize()
        self._recorded: dict[str, float] = {}
        log = self.logger.local_logger.my_fantastic_logging
        self._logged_by_nnunet = frozenset(log)
        log.update({term: [] for term in self.logged_terms})
        with exit_on_user_error():
            if tensorboard.is_wanted() and self.local_rank == 0:
                self.logger.loggers.append(tensorboard.TensorBoardLogger(Path(self.output_folder)))

    def on_train_start(self) -> None:
        super().on_train_start()
        self._continue_curves()

    def _continue_curves(self) -> None:
        """Give a log that a checkpoint had before settings changed the terms of today.

        nnU-Net's logger knows the terms of the checkpoint alone, counts epochs by the length of their lists, and draws
        as many epochs as the shortest has.
        """
        log = self.logger.local_logger.my_fantastic_logging
        for term in {*log} - self._logged_by_nnunet - {*self.logged_terms}:
            del log[term]
        for term in self.logged_terms:
            values = log.setdefault(term, [])
            values += [math.nan] * (self.current_epoch - len(values))

    def record(self, **values: torch.Tensor | float) -> None:
        """Log numbers of this step that are not losses, by the names in :attr:`method_terms`."""
        for name, value in values.items():
            self._recorded[name] = to_number(torch.as_tensor(value))

    def on_train_epoch_end(self, train_outputs: list[dict[str, Any]]) -> None:
        """Log the mean of every term over the epoch (and over the ranks)."""
        super().on_train_epoch_end(train_outputs)
        collated = collate_outputs(train_outputs)
        for term in self.logged_terms:
            values = collated[term]
            if self.is_ddp:
                gathered: list[Any] = [None] * distributed.get_world_size()
                distributed.all_gather_object(gathered, values)
                values = np.concatenate([np.ravel(of_rank) for of_rank in gathered])
            self.logger.log(term, float(np.mean(values)), self.current_epoch)

    def on_epoch_end(self) -> None:
        for term in self.logged_terms:
            self.print_to_log_file(term, f"{self.logger.get_value(term, step=-1):.5f}")
        super().on_epoch_end()
        if self.local_rank == 0:
            with exit_on_user_error():
                plot_losses(
                    self.logger.local_logger.my_fantastic_logging,
                    self.logged_terms,
                    Path(self.output_folder, "progress_losses.png"),
                )
