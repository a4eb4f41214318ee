"""How a semi-supervised trainer is built: nnU-Net's network, a teacher beside it, and the settings of the SFR plan."""

from __future__ import annotations

from functools import cached_property
from typing import Any, ClassVar

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import nn
from torch._dynamo import OptimizedModule
from torch.nn.parallel import DistributedDataParallel

from nnunet_sfr.dataset import SFRDataset
from nnunet_sfr.errors import exit_on_user_error
from nnunet_sfr.paths import SFRPaths
from nnunet_sfr.plans import SFRConfiguration
from nnunet_sfr.random_state import seed_everything
from nnunet_sfr.settings import RetrainingSettings
from nnunet_sfr.trainers.distributed import broadcast
from nnunet_sfr.trainers.feature_dropout import FeatureDropout
from nnunet_sfr.trainers.teacher import add_clipped_noise, freeze

# Schemes whose output has a standard deviation near 1, so that the noise needs no scale of its own.
Z_SCORING = {"ZScoreNormalization", "CTNormalization"}


class StudentAndTeacher(nnUNetTrainer):
    """nnU-Net's trainer with a teacher, the student's moving average, and modules of the method's own.

    The constructor keeps nnU-Net's signature, which its base class requires.
    """

    requested_epochs: ClassVar[int | None] = None
    """Set by the suffix ``_<N>epochs`` of a trainer's name; None takes the number in the SFR plan."""
    save_every: int

    def __init__(
        self,
        plans: dict[str, Any],
        configuration: str,
        fold: int,
        dataset_json: dict[str, Any],
        device: torch.device = torch.device("cuda"),  # noqa: B008 - nnU-Net's signature
    ) -> None:
        super().__init__(plans, configuration, fold, dataset_json, device)
        # nnU-Net's validation would resample its predictions for the cascade's second stage, which no trainer of ours
        # is and which need not be preprocessed. This is a copy: the plans that are saved keep their entry.
        self.configuration_manager.configuration.pop("next_stage", None)
        self.iteration = 0
        self.first_iteration = 0
        self._teacher_dropout: FeatureDropout | None = None
        self.teacher: nn.Module | None = None
        self.settings: RetrainingSettings | None = None
        self.extra_modules = nn.ModuleDict()
        self.extra_optimizer: torch.optim.Optimizer | None = None

    def build_extra_modules(self) -> nn.ModuleDict:
        """Modules that the method trains beside the network and keeps out of it; called when the network exists."""
        return nn.ModuleDict()

    @property
    def dropout(self) -> float:
        """Probability of dropping a feature map after the bottleneck and before the head; a method may ask for it.

        Student and teacher have it then: the student while it is trained, the teacher where :meth:`teacher_logits` is
        told to. Neither weights nor predictions of the finished network know of it.
        """
        return 0.0

    def planned_epochs(self, settings: SFRConfiguration) -> int:
        """Length of the run for a trainer whose name does not say it."""
        return settings.retraining.epochs

    @cached_property
    def sfr_dataset(self) -> SFRDataset:
        """The data set as the other stages see it, opened once: its settings are those of the start of the run."""
        paths = SFRPaths(
            self.plans_manager.dataset_name,
            self.plans_manager.plans_name,
            self.configuration_name,
            self.configuration_manager.data_identifier,
        )
        return SFRDataset(paths, self.plans_manager.plans, self.dataset_json)

    def initialize(self) -> None:
        """Read the settings, build nnU-Net's network and the teacher."""
        if self.is_cascaded:
            raise SystemExit(
                f"error: {self.configuration_name} is the second stage of a cascade, which "
                f"{type(self).__name__} does not train; use 3d_lowres or 3d_fullres"
            )
        with exit_on_user_error():
            settings = self.sfr_dataset.settings
        self.settings = settings.retraining
        self.num_epochs = self.requested_epochs or self.planned_epochs(settings)
        self.num_iterations_per_epoch = self.settings.iterations_per_epoch
        self.num_val_iterations_per_epoch = self.settings.validation_iterations_per_epoch
        # nnU-Net's 50 epochs between checkpoints would leave short runs without any
        self.save_every = min(self.save_every, max(1, self.num_epochs // 20))
        seed_everything(self.settings.seed + self.local_rank)
        super().initialize()
        self.teacher = self._build_teacher()
        if self.dropout > 0:
            with exit_on_user_error():
                FeatureDropout(self.student, self.dropout)
                self._teacher_dropout = FeatureDropout(self.teacher, self.dropout)

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

    def do_split(self) -> tuple[list[str], list[str]]:
        """nnU-Net's split of the labelled cases, after a check that all of them are there."""
        with exit_on_user_error():
            self.sfr_dataset.split(self.fold)
        split: tuple[list[str], list[str]] = super().do_split()
        return split

    @property
    def student(self) -> nn.Module:
        """The network itself, without the wrappers of DDP and torch.compile."""
        network = self.network.module if isinstance(self.network, DistributedDataParallel) else self.network
        return network._orig_mod if isinstance(network, OptimizedModule) else network

    @property
    def _teacher(self) -> nn.Module:
        if self.teacher is None:
            raise RuntimeError("initialize() has to run before the teacher is used")
        return self.teacher

    @torch.no_grad()
    def teacher_logits(self, images: torch.Tensor, *, add_noise: bool = True, dropout: bool = False) -> torch.Tensor:
        """The teacher's prediction for patches: (B, channels, ...) -> (B, C, ...) at full resolution.

        Args:
            images: the patches.
            add_noise: as Mean Teacher does; a method that perturbs the patches otherwise goes without.
            dropout: drop feature maps at random, for a method whose :attr:`dropout` is above 0.
        """
        if add_noise:
            images = add_clipped_noise(
                images,
                std=self.active_settings.teacher_noise_std,
                clip=self.active_settings.teacher_noise_clip,
                relative=not set(self.configuration_manager.normalization_schemes) <= Z_SCORING,
            )
        if not dropout:
            logits: torch.Tensor = self._teacher(images)
            return logits
        if self._teacher_dropout is None:
            raise RuntimeError("the teacher has no dropout, as the method's probability of it is 0")
        with self._teacher_dropout.switched_on():
            logits = self._teacher(images)
        return logits

    @property
    def active_settings(self) -> RetrainingSettings:
        """The settings, which exist once :meth:`initialize` has run."""
        if self.settings is None:
            raise RuntimeError("initialize() has to run before the settings are used")
        return self.settings

    @property
    def total_iterations(self) -> int:
        """Optimiser steps of this run."""
        return self.num_epochs * self.num_iterations_per_epoch

    @property
    def progress(self) -> float:
        """Share of this run that is done, from 0 to 1."""
        return (self.iteration - self.first_iteration) / self.total_iterations

    @property
    def schedule_iterations(self) -> int:
        """T of the schedules that ramp up: the length of the run in which they do."""
        return self.total_iterations
