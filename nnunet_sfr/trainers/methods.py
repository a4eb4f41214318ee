"""The semi-supervised methods: what is known of each without importing it, and what there is to set for it.

A method is a line in :data:`METHODS` and, if it has settings, a dataclass and a field of :class:`MethodSections`; its
code is a module of its own in this folder. Everything else follows: the trainers' names, the section
``retraining.<method>`` of the SFR plan, the choices of ``sfr_run --method``, the memory that sfr_doctor estimates, the
tests that every method has to pass. Importing this module imports neither torch nor nnU-Net.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field

from nnunet_sfr.setting_checks import require, require_at_least, require_below_one, require_fraction, require_positive


@dataclass(frozen=True)
class Method:
    """A semi-supervised method.

    Args:
        name: as the trainers' names have it (``nnUNetTrainer_<name>``); it is in every checkpoint, so it stays.
        module: in ``nnunet_sfr.trainers``, with the three trainers.
        relative_memory: peak memory of ``nnUNetTrainerSFR_<name>`` over that of ``nnUNetTrainer``, as
            ``benchmarks/every_trainer.py`` measures it.
    """

    name: str
    module: str
    relative_memory: float


METHODS: Mapping[str, Method] = {
    method.name: method
    for method in (
        Method("MT", "mean_teacher", relative_memory=1.09),
        Method("ACMT", "ambiguity_consensus", relative_memory=1.09),
        Method("MagicNet", "magicnet", relative_memory=2.02),
        Method("ICT", "interpolation_consistency", relative_memory=1.10),
        Method("ST", "self_training", relative_memory=1.09),
        Method("UAMT", "uncertainty_aware", relative_memory=1.10),
        Method("BCP", "bidirectional_copy_paste", relative_memory=1.10),
    )
}
"""Every method, by name."""

DEFAULT_METHOD = "MT"
DEFAULT_TRAINER = f"nnUNetTrainerSFR_{DEFAULT_METHOD}"
"""What is meant, and what messages recommend, where none is named."""


@dataclass(frozen=True, kw_only=True)
class ACMTSettings:
    """Ambiguity-consensus Mean Teacher."""

    threshold_start: float = 0.75
    """Voxels of normalised entropy >= start + rise * exp(-5 * (1 - t / T) ** 2) take part (AC-MT code)."""
    threshold_rise: float = 0.2
    """By how much that threshold rises over the run (AC-MT code)."""

    def __post_init__(self) -> None:
        require_fraction("threshold_start", self.threshold_start)
        require_at_least("threshold_rise", self.threshold_rise, 0)


@dataclass(frozen=True, kw_only=True)
class MagicNetSettings:
    """MagicNet."""

    cubes_per_axis: int = 3
    """An axis is cut into this many cubes, or as near to it as the network's strides allow (paper: 3)."""
    position_weight: float = 0.1
    """Weight of naming each cube's position (MagicNet code)."""
    blending_start: int = 100
    """Iterations before the pseudo-label listens to the cubes and not to the teacher alone (MagicNet code)."""
    statistics_window: int = 20
    """Iterations over which it is counted how often each class is predicted (MagicNet code)."""
    class_temperature: float = 1.0
    """T of the class weights, counts ** (1 / T); above 1 rare classes listen more to the cubes (MagicNet code)."""

    def __post_init__(self) -> None:
        require_at_least("cubes_per_axis", self.cubes_per_axis, 1)
        require_at_least("statistics_window", self.statistics_window, 1)
        require_at_least("position_weight", self.position_weight, 0)
        require_at_least("blending_start", self.blending_start, 0)
        require_positive("class_temperature", self.class_temperature)


@dataclass(frozen=True, kw_only=True)
class ICTSettings:
    """Interpolation consistency training."""

    alpha: float = 1.0
    """Two patches are mixed with lambda ~ Beta(alpha, alpha), which is uniform at 1; near 0 hardly anything is mixed
    (ICT: 1.0 for CIFAR-10, 0.1 for SVHN)."""

    def __post_init__(self) -> None:
        require_positive("alpha", self.alpha)


@dataclass(frozen=True, kw_only=True)
class STSettings:
    """Self-training."""

    relabel_at: tuple[float, ...] = (0.3, 0.6)
    """The pool is labelled again after these shares of the run (each whole epochs)."""

    def __post_init__(self) -> None:
        require(
            all(0.0 < share < 1.0 for share in self.relabel_at)
            and all(early < late for early, late in itertools.pairwise(self.relabel_at)),
            f"relabel_at must be rising shares of the run between 0 and 1, got {self.relabel_at}",
        )


@dataclass(frozen=True, kw_only=True)
class UAMTSettings:
    """Uncertainty-aware Mean Teacher."""

    passes: int = 8
    """Predictions of the teacher, with noise and dropout, from which its uncertainty is told (UA-MT code)."""
    dropout: float = 0.5
    """Probability of dropping a feature map, in student and teacher, after the bottleneck and before the head (UA-MT
    code); 0 leaves the noise alone."""
    threshold_start: float = 0.75
    """Voxels of normalised entropy < start + rise * exp(-5 * (1 - t / T) ** 2) take part (UA-MT code)."""
    threshold_rise: float = 0.25
    """By how much that threshold rises over the run (UA-MT code)."""

    def __post_init__(self) -> None:
        require_at_least("passes", self.passes, 1)
        require_below_one("dropout", self.dropout)
        require_fraction("threshold_start", self.threshold_start)
        require_at_least("threshold_rise", self.threshold_rise, 0)


@dataclass(frozen=True, kw_only=True)
class BCPSettings:
    """Bidirectional copy-paste."""

    mask_ratio: float = 2 / 3
    """Length of the pasted box along each axis, as a share of the patch (paper: beta = 2/3)."""
    unlabelled_weight: float = 0.5
    """Weight of the voxels with a teacher's label, beside 1 for those with a true one (paper: alpha = 0.5)."""
    pretraining_share: float = 0.12
    """Share of the run in which labelled patches alone are pasted into each other (BCP code for the left atrium: 2,000
    of 17,000 iterations)."""
    largest_component: bool = True
    """Keep the largest component of each class of the teacher's labels (paper); false where a class may have more."""

    def __post_init__(self) -> None:
        require(0.0 < self.mask_ratio < 1.0, f"mask_ratio must lie above 0 and below 1, got {self.mask_ratio}")
        require_at_least("unlabelled_weight", self.unlabelled_weight, 0)
        require_below_one("pretraining_share", self.pretraining_share)


@dataclass(frozen=True, kw_only=True)
class MethodSections:
    """The part of ``retraining`` that belongs to single methods: a section for each that has settings."""

    acmt: ACMTSettings = field(default_factory=ACMTSettings)
    magicnet: MagicNetSettings = field(default_factory=MagicNetSettings)
    ict: ICTSettings = field(default_factory=ICTSettings)
    st: STSettings = field(default_factory=STSettings)
    uamt: UAMTSettings = field(default_factory=UAMTSettings)
    bcp: BCPSettings = field(default_factory=BCPSettings)
