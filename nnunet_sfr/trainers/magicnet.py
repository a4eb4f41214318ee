"""MagicNet: cubes mixed across the images of a batch, and cubes on their own within an image.

D. Chen et al., "MagicNet: Semi-supervised multi-organ segmentation via magic-cube partition and recovery", CVPR 2023;
details from DeepMed-Lab-ECNU/MagicNet@316d7ee9. It works on every network with an encoder and a decoder like
nnU-Net's, in 3D and, with squares for cubes, in 2D.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

from nnunet_sfr.errors import UserError, exit_on_user_error
from nnunet_sfr.trainers.class_statistics import ClassStatistics, blend
from nnunet_sfr.trainers.cubes import (
    CubeGrid,
    draw_permutation,
    join_cubes,
    partition,
    plan_cube_grid,
    recover,
    split_cubes,
)
from nnunet_sfr.trainers.hard_labels import hard_targets, predicted_labels
from nnunet_sfr.trainers.patches import Patches
from nnunet_sfr.trainers.position_head import PositionHead, position_loss
from nnunet_sfr.trainers.rounds import LaterRound
from nnunet_sfr.trainers.semi_supervised import SemiSupervisedTrainer
from nnunet_sfr.trainers.sequential_backward import Losses
from nnunet_sfr.trainers.supervised_loss import dice_part


class nnUNetTrainer_MagicNet(SemiSupervisedTrainer):
    """MagicNet on labelled and unlabelled patches together.

    * The patches are cut into cubes, which change places with those of the other patches of the batch; the prediction
      of the mixed patches is put back and compared with the labels, and on unlabelled patches with a pseudo-label.
    * Every cube goes through the network on its own: its bottleneck has to tell its position, and the prediction, put
      together again, is compared with the labels.
    * That pseudo-label is the teacher's; where the teacher sees a common class, the cubes' prediction is blended in.

    The authors put the features of the mixed patches back and apply the segmentation head then. The head is a
    convolution of one voxel, so the logits can be put back instead; the result is the same.
    """

    method_terms = ("mixed_loss", "cube_loss", "position_loss", "consistency_loss")
    grid: CubeGrid
    class_statistics: ClassStatistics

    @property
    def loss_weights(self) -> dict[str, float]:
        # The authors' mean of four terms, cross-entropy, Dice, mixed Dice and cube Dice, is twice as large here, as
        # nnU-Net's Dice + cross-entropy is twice the authors' mean of these two.
        return {
            **super().loss_weights,
            "supervised_loss": 0.5,
            "mixed_loss": 0.5,
            "cube_loss": 0.5,
            "position_loss": self.active_settings.magicnet.position_weight,
        }

    def initialize(self) -> None:
        super().initialize()
        self.dice_loss = dice_part(self.loss)

    def build_extra_modules(self) -> nn.ModuleDict:
        settings = self.active_settings
        stride = np.prod(np.vstack(self.configuration_manager.pool_op_kernel_sizes), axis=0)
        with exit_on_user_error():
            _require_encoder_and_decoder(self.student)
            self.grid = plan_cube_grid(
                self.configuration_manager.patch_size, stride.tolist(), wanted=settings.magicnet.cubes_per_axis
            )
        self.print_to_log_file(f"MagicNet: {self.grid.cubes_per_axis} cubes of {self.grid.cube_size} voxels")
        self.class_statistics = ClassStatistics(
            max(self.label_manager.all_labels) + 1, settings.magicnet.statistics_window
        )
        bottleneck_size = tuple((self.grid.cube_size // stride).tolist())
        encoder: Any = self.student.encoder
        channels = encoder.output_channels[-1]
        return nn.ModuleDict({"position_head": PositionHead(channels, bottleneck_size, self.grid.num_cubes)})

    def method_state(self) -> dict[str, Any]:
        return {"class_statistics": self.class_statistics.state_dict()}

    def load_method_state(self, state: dict[str, Any]) -> None:
        self.class_statistics.load_state_dict(state["class_statistics"])

    def unlabelled_losses(self, labelled: Patches, unlabelled: Patches) -> Iterator[Losses]:
        images = torch.cat((labelled.images, unlabelled.images))
        truth = self.full_resolution(labelled.targets)
        teacher_logits = self.teacher_logits(unlabelled.images)
        cube_logits = yield from self._cube_losses(images, truth)
        yield self._mixed_losses(images, truth, self._pseudo_label(teacher_logits, cube_logits))
        if self.uses_pseudo_labels:
            yield self.pseudo_label_losses(self.network(unlabelled.images), unlabelled)

    def _cube_losses(self, images: torch.Tensor, truth: torch.Tensor) -> Generator[Losses, None, torch.Tensor]:
        """Every cube on its own; returns the constant logits (n, C, ...) of the unlabelled patches put together."""
        network: Any = self.student
        features = network.encoder(split_cubes(images, self.grid))
        logits = join_cubes(self.full_resolution(network.decoder(features)), self.grid)
        yield {
            "cube_loss": self.dice_loss(logits[: len(truth)], truth),
            "position_loss": position_loss(self.extra_modules["position_head"], features[-1], self.grid.num_cubes),
        }
        return logits[len(truth) :].detach()

    def _pseudo_label(self, teacher_logits: torch.Tensor, cube_logits: torch.Tensor) -> torch.Tensor:
        """The target for the unlabelled patches: the teacher's, blended with the cubes' once classes are counted."""
        classes = predicted_labels(teacher_logits, self.label_manager)
        weights = self.class_statistics.class_weights(self.active_settings.magicnet.class_temperature)
        self.class_statistics.add(classes)
        if weights is None or self.iteration <= self.active_settings.magicnet.blending_start:
            return hard_targets(teacher_logits, self.label_manager)
        return hard_targets(blend(teacher_logits, cube_logits, classes, weights), self.label_manager)

    def _mixed_losses(self, images: torch.Tensor, truth: torch.Tensor, pseudo_label: torch.Tensor) -> Losses:
        permutation = draw_permutation(len(images), self.grid, self.device)
        outputs = self.network(partition(images, permutation, self.grid))
        logits = recover(self.full_resolution(outputs), permutation, self.grid)
        return {
            "mixed_loss": self.dice_loss(logits[: len(truth)], truth),
            "consistency_loss": self.dice_loss(logits[len(truth) :], pseudo_label),
        }


def _require_encoder_and_decoder(network: nn.Module) -> None:
    if not (hasattr(network, "encoder") and hasattr(network, "decoder")):
        raise UserError(f"MagicNet needs a network with an encoder and a decoder, {type(network).__name__} has not")


class nnUNetTrainerSFR_MagicNet(nnUNetTrainer_MagicNet):
    """SFR with MagicNet: the pseudo-labels are learned from too."""

    uses_pseudo_labels = True


class nnUNetTrainerSFRPlus_MagicNet(LaterRound, nnUNetTrainerSFR_MagicNet):
    """A later round of SFR+ with MagicNet."""
