"""The trainer that every semi-supervised method shares.

It is nnU-Net's trainer with a second stream of patches, drawn from the unlabelled cases, and a teacher, the moving
average of the student. One step minimises

    L = L_sup(labelled) + w_p * L_pl(unlabelled, pseudo-labels) + w(t) * L_cons(unlabelled)

(docs/method.md, section 4) with nnU-Net's own Dice + cross-entropy and deep supervision for L_sup and L_pl. The parts
are back-propagated one after the other, so that peak memory stays near nnU-Net's own. A method states what it learns
from the unlabelled patches; docs/add-a-method.md shows how.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.collate_outputs import collate_outputs
from torch import distributed, nn
from torch._dynamo import OptimizedModule
from torch.nn.parallel import DistributedDataParallel

from nnunet_sfr import __version__
from nnunet_sfr.atomic import replacing, write_json
from nnunet_sfr.data.datasets import PseudoLabelledDataset, UnlabelledDataset
from nnunet_sfr.data.loaders import TwoStreams
from nnunet_sfr.data.preprocessing import check_grids
from nnunet_sfr.data.pseudo_label_store import PseudoLabelStore
from nnunet_sfr.dataset import SFRDataset, check_fold
from nnunet_sfr.errors import exit_on_user_error
from nnunet_sfr.paths import SFRPaths
from nnunet_sfr.random_state import random_state, restore_random_state, seed_everything
from nnunet_sfr.settings import RetrainingSettings
from nnunet_sfr.trainers.distributed import average_gradients, broadcast
from nnunet_sfr.trainers.loss_plot import plot_losses
from nnunet_sfr.trainers.schedules import consistency_weight, teacher_decay
from nnunet_sfr.trainers.streams import open_streams
from nnunet_sfr.trainers.teacher import add_clipped_noise, freeze, update_teacher

CHECKPOINT_KEY = "nnunet_sfr"
"""Where a checkpoint keeps what nnU-Net does not know; a stock nnUNetTrainer does not look there."""

TEACHER_CHECKPOINT = "checkpoint_teacher.pth"
"""nnUNetv2_predict -chk checkpoint_teacher.pth predicts with the teacher."""

Losses = Mapping[str, torch.Tensor]
"""Scalar losses by name, before their weights."""

# Schemes whose output has a standard deviation near 1, so that the noise needs no scale of its own.
Z_SCORING = {"ZScoreNormalization", "CTNormalization"}


@dataclass(frozen=True)
class Patches:
    """A batch of one stream, on the device."""

    images: torch.Tensor
    """(n, channels, ...)"""
    targets: Any
    """A list of (n, 1, ...) label maps from full resolution down; one label map without deep supervision. With regions
    one channel for each of them."""


class SemiSupervisedTrainer(nnUNetTrainer):
    """Base of the trainers; a method overrides :meth:`unlabelled_losses`.

    The constructor keeps nnU-Net's signature, which its base class requires.
    """

    requested_epochs: ClassVar[int | None] = None
    """Set by the suffix ``_<N>epochs`` of a trainer's name; None takes the number in the SFR plan."""
    uses_pseudo_labels: ClassVar[bool] = False
    """Whether the unlabelled stream has pseudo-labels (w_p of the SFR plan) or images alone (w_p = 0)."""
    method_terms: ClassVar[tuple[str, ...]] = ()
    """What the method logs: losses that it yields, and numbers that it gives to :meth:`record`."""
    save_every: int
    dataloader_train: Any
    dataloader_val: Any

    def __init__(
        self,
        plans: dict[str, Any],
        configuration: str,
        fold: int,
        dataset_json: dict[str, Any],
        device: torch.device = torch.device("cuda"),  # noqa: B008 - nnU-Net's signature
    ) -> None:
        super().__init__(plans, configuration, fold, dataset_json, device)
        for term in self.logged_terms:
            self.logger.local_logger.my_fantastic_logging[term] = []
        self.iteration = 0
        self.teacher: nn.Module | None = None
        self.settings: RetrainingSettings | None = None
        self.extra_modules = nn.ModuleDict()
        self.extra_optimizer: torch.optim.Optimizer | None = None
        self._recorded: dict[str, np.ndarray] = {}
        self._state_to_restore: dict[str, Any] | None = None

    # --- what a method states ---

    def unlabelled_losses(self, labelled: Patches, unlabelled: Patches) -> Iterator[Losses]:
        """What the method learns from besides the labels.

        Each yielded group is weighted (:attr:`loss_weights`), summed, back-propagated and freed before the generator
        goes on, so losses that share feature maps belong in one group and the others in groups of their own.

        Args:
            labelled: patches with labels, for methods that mix the two.
            unlabelled: patches of the pool, with the pseudo-labels as targets if there are any.

        Yields:
            scalar losses by name.
        """
        raise NotImplementedError

    @property
    def loss_weights(self) -> dict[str, float]:
        """Weight of every loss at the present iteration; a method adds its own."""
        settings = self.active_settings
        return {
            "supervised_loss": 1.0,
            "pseudo_label_loss": settings.pseudo_label_weight,
            "consistency_loss": consistency_weight(
                self.iteration,
                total_iterations=self.total_iterations,
                maximum=settings.consistency_weight,
                ramp_up_fraction=settings.ramp_up_fraction,
            ),
        }

    def build_extra_modules(self) -> nn.ModuleDict:
        """Modules that the method trains beside the network and keeps out of it; called when the network exists."""
        return nn.ModuleDict()

    def method_state(self) -> dict[str, Any]:
        """What a checkpoint has to keep of the method, extra modules aside."""
        return {}

    def load_method_state(self, state: dict[str, Any]) -> None:
        """Take back what :meth:`method_state` gave."""

    @property
    def logged_terms(self) -> tuple[str, ...]:
        """What :meth:`train_step` returns besides the loss; means over an epoch go into nnU-Net's logger."""
        terms = ["supervised_loss", *(["pseudo_label_loss"] if self.uses_pseudo_labels else []), *self.method_terms]
        if "consistency_loss" in terms:
            terms.append("consistency_weight")
        return tuple(dict.fromkeys(terms))

    # --- set-up ---

    @property
    def sfr_dataset(self) -> SFRDataset:
        """The data set as the other stages see it."""
        paths = SFRPaths(
            self.plans_manager.dataset_name,
            self.plans_manager.plans_name,
            self.configuration_name,
            self.configuration_manager.data_identifier,
        )
        return SFRDataset(paths, self.plans_manager, self.dataset_json)

    def initialize(self) -> None:
        """Read the settings, build nnU-Net's network and the teacher."""
        if self.is_cascaded:
            raise SystemExit(
                f"error: {self.configuration_name} is the second stage of a cascade, which "
                f"{type(self).__name__} does not train; use 3d_lowres or 3d_fullres"
            )
        with exit_on_user_error():
            self.settings = self.sfr_dataset.settings.retraining
        self.num_epochs = self.requested_epochs or self.settings.epochs
        self.num_iterations_per_epoch = self.settings.iterations_per_epoch
        self.num_val_iterations_per_epoch = self.settings.validation_iterations_per_epoch
        # nnU-Net's 50 epochs between checkpoints would leave short runs without any
        self.save_every = min(self.save_every, max(1, self.num_epochs // 20))
        seed_everything(self.settings.seed + self.local_rank)
        super().initialize()
        self.teacher = self._build_teacher()

    def configure_optimizers(self) -> tuple[Any, Any]:
        """nnU-Net's optimiser and schedule, and a twin for the method's own modules.

        A twin, because nnU-Net's optimiser lies in its checkpoints, which a stock trainer must be able to read.
        """
        optimizer, scheduler = super().configure_optimizers()
        self.extra_modules = self.build_extra_modules().to(self.device)
        if len(self.extra_modules):
            if self.is_ddp:
                broadcast(self.extra_modules)  # every rank has a seed of its own
            self.extra_optimizer = type(optimizer)(self.extra_modules.parameters(), **optimizer.defaults)
        return optimizer, scheduler

    def _build_teacher(self) -> nn.Module:
        """The student's architecture without deep supervision, with the student's weights."""
        teacher = self.build_network_architecture(
            self.plans_manager,
            self.configuration_manager,
            self.num_input_channels,
            self.label_manager.num_segmentation_heads,
            False,
        ).to(self.device)
        teacher.load_state_dict(self.student.state_dict())
        return freeze(teacher)

    @property
    def student(self) -> nn.Module:
        """The network itself, without the wrappers of DDP and torch.compile."""
        network = self.network.module if isinstance(self.network, DistributedDataParallel) else self.network
        return network._orig_mod if isinstance(network, OptimizedModule) else network

    @property
    def active_settings(self) -> RetrainingSettings:
        """The settings, which exist once :meth:`initialize` has run."""
        if self.settings is None:
            raise RuntimeError("initialize() has to run before the settings are used")
        return self.settings

    @property
    def total_iterations(self) -> int:
        return self.num_epochs * self.num_iterations_per_epoch

    def do_split(self) -> tuple[list[str], list[str]]:
        """nnU-Net's split of the labelled cases; with fewer than five of them only fold ``all`` exists."""
        if self.fold != "all" and not Path(self.preprocessed_dataset_folder_base, "splits_final.json").is_file():
            labelled = self.dataset_class.get_identifiers(self.preprocessed_dataset_folder)
            with exit_on_user_error():
                check_fold(self.fold, len(labelled))
        split: tuple[list[str], list[str]] = super().do_split()
        return split

    # --- data ---

    def unlabelled_dataset(self) -> UnlabelledDataset:
        """The pool: with its pseudo-labels, or images alone."""
        dataset = self.sfr_dataset
        if not self.uses_pseudo_labels:
            return UnlabelledDataset(dataset.paths.unlabelled)
        store = PseudoLabelStore.open(dataset.paths.pseudo_labels(self.fold), grid=dataset.grid)
        return PseudoLabelledDataset(dataset.paths.unlabelled, store)

    def get_dataloaders(self) -> tuple[TwoStreams, Any]:
        """Labelled and unlabelled training patches, and nnU-Net's validation patches."""
        labelled, held_out = self.get_tr_and_val_datasets()
        with exit_on_user_error():
            unlabelled = self.unlabelled_dataset()
            for cases in (labelled, held_out, unlabelled):
                check_grids(cases, self.plans_manager, self.configuration_manager)
        return open_streams(self, labelled=labelled, unlabelled=unlabelled, held_out=held_out)

    # --- training ---

    def on_train_start(self) -> None:
        super().on_train_start()
        if self.iteration == 0:
            # the student may have been given pre-trained weights since the teacher was built
            self._teacher.load_state_dict(self.student.state_dict())
        if self.local_rank == 0:
            with exit_on_user_error():
                self._write_settings()
        if self._state_to_restore is not None:
            self._restore_randomness(self._state_to_restore)
            self._state_to_restore = None

    def _restore_randomness(self, state: dict[str, Any]) -> None:
        """Go on with the generators' state; opening the loaders draws from them, so this comes last.

        The checkpoint has the state of the first rank alone: with DDP every rank starts a new stream of its own, so
        that no two of them draw the same cases.
        """
        if self.is_ddp:
            world_size = distributed.get_world_size()
            seed_everything(self.active_settings.seed + self.local_rank + world_size * self.iteration)
        else:
            restore_random_state(state)

    def _write_settings(self) -> None:
        used = {
            "nnunet_sfr_version": __version__,
            "torch_version": torch.__version__,
            "trainer": type(self).__name__,
            "epochs": self.num_epochs,
            **self.sfr_dataset.settings.to_dict(),
        }
        write_json(used, Path(self.output_folder, "sfr_settings.json"))

    def train_step(self, batch: dict[str, dict[str, Any]]) -> dict[str, Any]:
        """One optimiser step on n labelled and n unlabelled patches.

        Args:
            batch: ``labelled`` and ``unlabelled``, each with ``data`` (n, channels, ...) and ``target`` (see
                :class:`Patches`).

        Returns:
            the loss and :attr:`logged_terms`, as NumPy scalars; a loss that was not asked for is 0.
        """
        labelled, unlabelled = self._patches(batch["labelled"]), self._patches(batch["unlabelled"])
        weights = self.loss_weights
        self._recorded = {"consistency_weight": np.asarray(weights["consistency_loss"])}
        for module in (self.network, self.extra_modules):
            module.zero_grad(set_to_none=True)
        # With DDP the gradients are averaged once, in the last backward pass. That is the supervised one, because it
        # reaches every parameter: DDP waits for all of them, and a method without pseudo-labels leaves some heads out.
        with self._without_gradient_sync():
            losses = self._descend(self.unlabelled_losses(labelled, unlabelled), weights)
        losses |= self._descend(self._supervised_losses(labelled), weights)
        self._optimizer_step()
        update_teacher(self._teacher, self.student, teacher_decay(self.iteration, self.active_settings.ema_decay))
        self.iteration += 1
        total = np.asarray(sum(weights[name] * loss for name, loss in losses.items()))
        terms = {**self._recorded, **losses}
        return {"loss": total, **{term: terms.get(term, np.zeros(())) for term in self.logged_terms}}

    def _patches(self, batch: dict[str, Any]) -> Patches:
        return Patches(self._to_device(batch["data"]), self._to_device(batch["target"]))

    def _supervised_losses(self, labelled: Patches) -> Iterator[Losses]:
        yield {"supervised_loss": self.loss(self.network(labelled.images), labelled.targets)}

    def pseudo_label_losses(self, outputs: Any, unlabelled: Patches) -> Losses:
        """L_pl of what the network says of the unlabelled patches; nothing for a method without pseudo-labels.

        Args:
            outputs: of the network, with deep supervision.
            unlabelled: the patches.
        """
        return {"pseudo_label_loss": self.loss(outputs, unlabelled.targets)} if self.uses_pseudo_labels else {}

    def _descend(self, groups: Iterable[Losses], weights: Mapping[str, float]) -> dict[str, np.ndarray]:
        """Back-propagate each group of losses before the next is computed; returns the losses."""
        values: dict[str, np.ndarray] = {}
        iterator = iter(groups)
        while True:
            with self._autocast():
                group = next(iterator, None)
                if group is None:
                    return values
                if not group:
                    continue
                total = torch.stack([weights[name] * loss for name, loss in group.items()]).sum()
            self._backward(total)
            values |= {name: _to_numpy(loss) for name, loss in group.items()}

    def full_resolution(self, values: Any) -> torch.Tensor:
        """What is at full resolution, among the network's outputs (n, C, ...) or among targets (n, 1, ...)."""
        finest: torch.Tensor = values[0] if self.enable_deep_supervision else values
        return finest

    def record(self, **values: torch.Tensor | float) -> None:
        """Log numbers of this step that are not losses, by the names in :attr:`method_terms`."""
        for name, value in values.items():
            self._recorded[name] = _to_numpy(torch.as_tensor(value))

    @torch.no_grad()
    def teacher_logits(self, images: torch.Tensor, *, add_noise: bool = True) -> torch.Tensor:
        """What the teacher says of the patches: (B, channels, ...) -> (B, C, ...) at full resolution.

        Args:
            images: the patches.
            add_noise: as Mean Teacher does; a method that perturbs the patches otherwise goes without.
        """
        if add_noise:
            images = add_clipped_noise(
                images,
                std=self.active_settings.teacher_noise_std,
                clip=self.active_settings.teacher_noise_clip,
                relative=not set(self.configuration_manager.normalization_schemes) <= Z_SCORING,
            )
        logits: torch.Tensor = self._teacher(images)
        return logits

    @property
    def _teacher(self) -> nn.Module:
        if self.teacher is None:
            raise RuntimeError("initialize() has to run before the teacher is used")
        return self.teacher

    def _to_device(self, value: Any) -> Any:
        if isinstance(value, list):
            return [item.to(self.device, non_blocking=True) for item in value]
        return value.to(self.device, non_blocking=True)

    def _autocast(self) -> AbstractContextManager[Any]:
        """nnU-Net's rule: mixed precision on CUDA alone."""
        return torch.autocast("cuda") if self.device.type == "cuda" else nullcontext()

    def _without_gradient_sync(self) -> AbstractContextManager[Any]:
        return self.network.no_sync() if self.is_ddp else nullcontext()

    def _backward(self, loss: torch.Tensor) -> None:
        (loss if self.grad_scaler is None else self.grad_scaler.scale(loss)).backward()

    def _optimizer_step(self) -> None:
        """nnU-Net's step: gradients clipped to a norm of 12."""
        if self.is_ddp:
            average_gradients(self.extra_modules)  # DDP does this for the network alone
        self._step(self.optimizer, self.network)
        if self.extra_optimizer is not None:
            for group in self.extra_optimizer.param_groups:
                group["lr"] = self.optimizer.param_groups[0]["lr"]
            self._step(self.extra_optimizer, self.extra_modules)
        if self.grad_scaler is not None:
            self.grad_scaler.update()

    def _step(self, optimizer: torch.optim.Optimizer, modules: nn.Module) -> None:
        if all(parameter.grad is None for parameter in modules.parameters()):
            return  # a method may leave its modules out of a step, but a scaler refuses an optimiser without gradients
        if self.grad_scaler is not None:
            self.grad_scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(modules.parameters(), 12)
        if self.grad_scaler is not None:
            self.grad_scaler.step(optimizer)
        else:
            optimizer.step()

    # --- logging ---

    def on_train_epoch_end(self, train_outputs: list[dict[str, Any]]) -> None:
        """Log the mean of every term over the epoch (and over the ranks)."""
        super().on_train_epoch_end(train_outputs)
        collated = collate_outputs(train_outputs)
        for term in self.logged_terms:
            values = collated[term]
            if self.is_ddp:
                gathered: list[Any] = [None] * distributed.get_world_size()
                distributed.all_gather_object(gathered, values)
                values = np.vstack(gathered)
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

    def on_train_end(self) -> None:
        super().on_train_end()
        if isinstance(self.dataloader_train, TwoStreams):
            self.dataloader_train.finish()
        if self.local_rank == 0 and not self.disable_checkpointing:
            self._save_teacher_checkpoint()
        if self.is_ddp:
            distributed.barrier()  # nnU-Net's validation may read a checkpoint that the first rank is still writing

    # --- checkpoints ---

    def save_checkpoint(self, filename: str) -> None:
        """nnU-Net's checkpoint, plus teacher, iteration and random state; replaced in one move.

        nnU-Net writes its part, which is read back and extended, so that its format stays nnU-Net's business.
        """
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
            torch.save(checkpoint, temporary)

    def save_latest_checkpoint(self) -> None:
        """A checkpoint between two epochs, from which ``--c`` goes on with the epoch that is about to start."""
        self.current_epoch -= 1  # nnU-Net's checkpoint counts the present epoch as done
        self.save_checkpoint(str(Path(self.output_folder, "checkpoint_latest.pth")))
        self.current_epoch += 1

    def load_checkpoint(self, filename_or_checkpoint: str) -> None:
        """Load student, optimiser and schedule (nnU-Net), and teacher, iteration and random state (ours)."""
        super().load_checkpoint(filename_or_checkpoint)
        checkpoint = torch.load(filename_or_checkpoint, map_location="cpu", weights_only=False)
        if CHECKPOINT_KEY not in checkpoint:
            raise SystemExit(
                f"error: {filename_or_checkpoint}: was not written by {type(self).__name__}; it has no teacher"
            )
        extra = checkpoint[CHECKPOINT_KEY]
        self._report_changes(extra["settings"])
        self._teacher.load_state_dict(extra["teacher_weights"])
        self.extra_modules.load_state_dict(extra["extra_modules"])
        if self.extra_optimizer is not None:
            self.extra_optimizer.load_state_dict(extra["extra_optimizer"])
        self.load_method_state(extra["method"])
        self.iteration = extra["iteration"]
        self._state_to_restore = extra["random_state"]

    def _report_changes(self, before: dict[str, Any]) -> None:
        """Changed settings are used from here on, as nnU-Net uses a changed plan; the log says which."""
        for name, value in asdict(self.active_settings).items():
            if before.get(name) != value:
                self.print_to_log_file(f"SFR plan: retraining.{name} was {before.get(name)} and is now {value}")

    def _save_teacher_checkpoint(self) -> None:
        """The final checkpoint with the teacher's weights in the student's place, for nnUNetv2_predict -chk."""
        checkpoint = torch.load(
            Path(self.output_folder, "checkpoint_final.pth"), map_location="cpu", weights_only=False
        )
        checkpoint["network_weights"] = checkpoint.pop(CHECKPOINT_KEY)["teacher_weights"]
        del checkpoint["optimizer_state"]  # it is the student's
        with exit_on_user_error(), replacing(Path(self.output_folder, TEACHER_CHECKPOINT)) as temporary:
            torch.save(checkpoint, temporary)


def _to_numpy(loss: torch.Tensor) -> np.ndarray:
    value: np.ndarray = loss.detach().float().cpu().numpy()
    return value
