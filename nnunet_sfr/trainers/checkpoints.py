"""What a checkpoint keeps beside nnU-Net's part, so that a stopped training continues as if it had not been."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import distributed

from nnunet_sfr import __version__, torch_files
from nnunet_sfr.atomic import replacing
from nnunet_sfr.errors import exit_on_user_error
from nnunet_sfr.paths import FINAL_CHECKPOINT, LATEST_CHECKPOINT, TEACHER_CHECKPOINT
from nnunet_sfr.plans import retraining_of_today
from nnunet_sfr.random_state import random_state, restore_random_state, seed_everything
from nnunet_sfr.trainers.student_and_teacher import StudentAndTeacher

CHECKPOINT_KEY = "nnunet_sfr"
"""Where a checkpoint keeps what nnU-Net does not know; a stock nnUNetTrainer does not look there."""


class Resumable(StudentAndTeacher):
    """Saves and restores teacher, method, iteration and random state with nnU-Net's checkpoints."""

    _state_to_restore: dict[str, Any] | None = None
    _was_complete = False

    def method_state(self) -> dict[str, Any]:
        """What a checkpoint has to keep of the method, extra modules aside."""
        return {}

    def load_method_state(self, state: dict[str, Any]) -> None:
        """Take back what :meth:`method_state` gave."""

    def on_train_start(self) -> None:
        super().on_train_start()
        if self._state_to_restore is not None:
            self._restore_randomness(self._state_to_restore)
            self._state_to_restore = None
        is_there = Path(self.output_folder, FINAL_CHECKPOINT).is_file()
        self._was_complete = is_there and self.current_epoch >= self.num_epochs

    def _restore_randomness(self, state: dict[str, Any]) -> None:
        """Continue the generators' sequences; opening the loaders draws from them, so this comes last.

        The checkpoint has the state of the first rank alone: with DDP every rank starts a new stream of its own, so
        that no two of them draw the same cases.
        """
        if self.is_ddp:
            self._seed_new_stream()
        else:
            restore_random_state(state)

    def _seed_new_stream(self) -> None:
        """Seed this rank with a number that no rank had at an earlier iteration."""
        ranks = distributed.get_world_size() if self.is_ddp else 1
        seed_everything(self.active_settings.seed + self.local_rank + ranks * self.iteration)

    def save_checkpoint(self, filename: str) -> None:
        """nnU-Net's checkpoint, plus teacher, iteration and random state; replaced in one move.

        nnU-Net writes its part, which is read back and extended, so that its format stays nnU-Net's business. A run
        that was complete when it started saves nothing: labels and later rounds know its final checkpoint by the hash.
        """
        if self._was_complete:
            return
        if self.local_rank != 0 or self.disable_checkpointing:
            super().save_checkpoint(filename)
            return
        with exit_on_user_error(), replacing(Path(filename)) as temporary:
            super().save_checkpoint(str(temporary))
            checkpoint = torch.load(temporary, map_location="cpu", weights_only=False)
            checkpoint[CHECKPOINT_KEY] = {
                "version": __version__,
                "teacher_weights": self._teacher.state_dict(),
                "extra_modules": self.extra_modules.state_dict(),
                "extra_optimizer": None if self.extra_optimizer is None else self.extra_optimizer.state_dict(),
                "method": self.method_state(),
                "iteration": self.iteration,
                "settings": asdict(self.active_settings),
                "random_state": random_state(),
            }
            torch_files.save(checkpoint, temporary)

    def save_latest_checkpoint(self) -> None:
        """A checkpoint between two epochs, from which ``--c`` continues with the epoch that is about to start."""
        self.current_epoch -= 1  # nnU-Net's checkpoint counts the present epoch as done
        self.save_checkpoint(str(Path(self.output_folder, LATEST_CHECKPOINT)))
        self.current_epoch += 1

    def load_checkpoint(
        self,
        checkpoint: str | dict[str, Any] | None = None,
        filename_or_checkpoint: str | dict[str, Any] | None = None,
    ) -> None:
        """Load student, optimiser and schedule (nnU-Net), and teacher, iteration and random state (ours).

        Args:
            checkpoint: file, or what it holds; the argument's name in nnU-Net's development version.
            filename_or_checkpoint: the same under the name that nnU-Net 2.8 has.
        """
        given = checkpoint if checkpoint is not None else filename_or_checkpoint
        if given is None:
            raise TypeError("load_checkpoint() needs a file or the content of a checkpoint")
        content = given if isinstance(given, dict) else torch.load(given, map_location="cpu", weights_only=False)
        where = "this checkpoint" if isinstance(given, dict) else given
        if CHECKPOINT_KEY not in content:
            raise SystemExit(f"error: {where}: was not written by {type(self).__name__}; it has no teacher")
        super().load_checkpoint(given)  # by position: the name depends on the version
        extra = content[CHECKPOINT_KEY]
        changes = self._changes_since(extra["settings"])
        for change in changes:  # used from here on, as nnU-Net uses a changed plan
            self.print_to_log_file(f"SFR plan: {change}")
        self._teacher.load_state_dict(extra["teacher_weights"])
        try:
            self.extra_modules.load_state_dict(extra["extra_modules"])
        except RuntimeError:
            raise SystemExit(
                f"error: {where}: what {type(self).__name__} trains beside the network has another size by now: "
                f"{', '.join(changes) or 'the plan changed'}; set the value back that it depends on, or train without "
                "--c"
            ) from None
        if self.extra_optimizer is not None:
            self.extra_optimizer.load_state_dict(extra["extra_optimizer"])
        self.load_method_state(extra["method"])
        self.iteration = extra["iteration"]
        self._state_to_restore = extra["random_state"]

    def _changes_since(self, before: dict[str, Any]) -> list[str]:
        """Which settings are others than in a checkpoint."""
        old, new = (_flat(settings) for settings in (retraining_of_today(before), asdict(self.active_settings)))
        return [
            f"retraining.{name} was {old.get(name)} and is now {value}"
            for name, value in new.items()
            if old.get(name) != value
        ]

    def on_train_end(self) -> None:
        super().on_train_end()
        if self.local_rank == 0 and not self.disable_checkpointing:
            self._save_teacher_checkpoint()
        if self.is_ddp:
            distributed.barrier()  # nnU-Net's validation may read a checkpoint that the first rank is still writing

    def _save_teacher_checkpoint(self) -> None:
        """The final checkpoint with the teacher's weights in the student's place, for nnUNetv2_predict -chk."""
        checkpoint = torch.load(Path(self.output_folder, FINAL_CHECKPOINT), map_location="cpu", weights_only=False)
        checkpoint["network_weights"] = checkpoint.pop(CHECKPOINT_KEY)["teacher_weights"]
        del checkpoint["optimizer_state"]  # it is the student's
        with exit_on_user_error(), replacing(Path(self.output_folder, TEACHER_CHECKPOINT)) as temporary:
            torch_files.save(checkpoint, temporary)


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Settings by name; those of a subsection have its name in front."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return flat
