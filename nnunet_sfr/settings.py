"""Every setting of SFR with its default, where the default comes from, and the check that it must pass.

These dataclasses are the sections of one configuration in ``<plans>_SFRPlans.json``; the file may be edited by hand and
is validated whenever it is read. "SFR code" and "paper" name the two sources; where they differ, the field says so.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from nnunet_sfr.canvas import check_canvas
from nnunet_sfr.confidence_measures import MEASURES
from nnunet_sfr.label_decision import DECISION_RULES, LARGEST_PROBABILITY
from nnunet_sfr.sam_models import DEFAULT_MODEL, MODELS, find_model
from nnunet_sfr.sam_stage.adaptations import ADAPTATIONS, find_adaptation
from nnunet_sfr.setting_checks import (
    require,
    require_at_least,
    require_below_one,
    require_fraction,
    require_positive,
    require_seed,
)
from nnunet_sfr.trainers.methods import MethodSections

CONFIDENCE_SOURCES = ("model", "sam")

Section = TypeVar("Section")

LARGEST_FLOAT = 10**308
LARGEST_INT = 2**63 - 1
"""What torch and NumPy hold; larger ones have no float either."""


@dataclass(frozen=True, kw_only=True)
class StitchingSettings:
    """How a patch of slices becomes one square image (paper, section III-B1)."""

    patch_size: tuple[int, int, int]
    """(D, H, W) in voxels of the preprocessed grid that one mosaic shows."""
    canvas_size: int
    """Side of the stitched image in pixels: SAM's input size."""
    slice_axes: tuple[int, ...] = (0,)
    """Axes of the preprocessed grid (0, 1 or 2) across which a patch is cut into slices: a mosaic and a fine-tuned SAM
    for each; labels are decided by the mean of their probabilities. nnU-Net puts the axis of the largest spacing first;
    planning takes that one, or the first axis of the images where spacings hardly differ (docs/results.md compares one
    axis with three)."""
    scale: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """Factors for (D, H, W) by which a patch is resampled before it is stitched; more than 1 buys detail
    with time (paper: 1, every voxel a pixel; Fig. 9 compares). Upsampling (Fig. 3) is a patch of one slice at
    [1, s, s] with s = canvas_size / max(height, width), small input the same patch unscaled on a canvas just as large,
    and the uniform 96 x 96 x 96 (Table VI) a patch of D x 96 x 96 at [96 / D, 1, 1]."""

    def __post_init__(self) -> None:
        require(
            len(self.slice_axes) > 0 and len(set(self.slice_axes)) == len(self.slice_axes),
            f"slice_axes must name at least one axis, each once, got {self.slice_axes}",
        )
        for axis in self.slice_axes:
            check_canvas(self.patch_size, self.canvas_size, self.scale, axis)


@dataclass(frozen=True, kw_only=True)
class SAMSettings:
    """Which SAM, and what of it is trained (paper, section III-B2)."""

    model: str = DEFAULT_MODEL
    """A name in :data:`nnunet_sfr.sam_models.MODELS`; the table below says what each is."""
    checkpoint: str | None = None
    """A file with weights of the model; null takes the published ones (docs/licences.md says where they come from)."""
    adaptation: str = MODELS[DEFAULT_MODEL].adaptation
    """A name in :data:`nnunet_sfr.sam_stage.adaptations.ADAPTATIONS`; the table below says what each trains."""
    adaptation_settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Settings of that adaptation, by name; those that are missing take their defaults."""
    window: tuple[float, float] = (-160.0, 240.0)
    """Lowest and highest Hounsfield units that are told apart in CT channels, for models that want values from 0 to 1
    (planning takes the window of soft tissue, lung or bone, whichever holds the median of the labelled foreground)."""

    def __post_init__(self) -> None:
        low, high = self.window
        require(low < high, f"window must rise, got {self.window}")
        model, adaptation = find_model(self.model), find_adaptation(self.adaptation)
        if model.weights is None:
            require(
                adaptation.fits_random_weights,
                f"{model.name} has no pre-trained weights to keep: its adaptation must be {_names(_FROM_SCRATCH)}",
            )
            require(self.checkpoint is None, f"{model.name} has no published weights: its checkpoint must be null")
        try:
            complete = dataclasses.asdict(section_from_dict(adaptation.settings, self.adaptation_settings))
        except ValueError as error:
            raise ValueError(f"adaptation_settings of {adaptation.name}: {error}") from None
        object.__setattr__(self, "adaptation_settings", complete)

    @property
    def strategy(self) -> Any:
        """The settings of the adaptation, as the dataclass that it declares."""
        return section_from_dict(find_adaptation(self.adaptation).settings, self.adaptation_settings)


_FROM_SCRATCH = [name for name, adaptation in ADAPTATIONS.items() if adaptation.fits_random_weights]


def _names(names: Sequence[str]) -> str:
    return " or ".join(repr(name) for name in names)


@dataclass(frozen=True, kw_only=True)
class FineTuningSettings:
    """Fine-tuning of SAM on stitched labelled patches (paper, section IV-B; SFR code)."""

    iterations: int = 6000
    """T, the optimiser steps. Planning writes what the records of model and adaptation say; for ``decoder`` and
    ``few_shot`` that number times the root of the number of labelled cases, at most this default."""
    batch_size: int = 2
    """Stitched patches per step, over all processes together. Planning writes fewer than the model's record says where
    the canvas is large."""
    views: int = 32
    """Where the image encoder is frozen: augmented views of each labelled patch that are embedded once and kept on
    disk, the first without augmentation. A case has as many patches as it has voxels of one."""
    activation_checkpointing: bool = False
    """Compute the encoder's activations again in the backward pass: less memory for more time. Without effect where the
    image encoder is frozen."""
    learning_rate: float = 1e-3
    """Of AdamW, at its highest."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Of AdamW."""
    weight_decay: float = 0.1
    """Of AdamW."""
    max_gradient_norm: float | None = None
    """Gradients with a larger norm are scaled down to it; null leaves them as they are (SFR code)."""
    warmup_fraction: float = 0.05
    """Linear warm-up over this share W / T of the run: a factor min((t + 1) / W, 1). (Plans of version 0.1 have
    warmup_iterations, the number W itself, which is still read.)"""
    poly_exponent: float = 0.9
    """Decay over the whole run: a factor (1 - t / T) ** poly_exponent."""
    cross_entropy_weight: float = 0.5
    """SFR code: 0.5; SAMed: 0.2."""
    dice_weight: float = 0.5
    """SFR code: 0.5; SAMed: 0.8."""
    shift_fraction: float = 0.15
    """Longest random shift along each axis, as a share of the patch, on top of nnU-Net's augmentation (SFR code: random
    crops)."""
    bezier_probability: float = 0.0
    """Chance of a random monotone intensity curve per slice on top of nnU-Net's augmentation (SFR code: 0.5)."""
    validation_every: int = 500
    """Iterations between two validations, at which the latest state is saved too."""
    max_validation_cases: int = 8
    """A validation predicts at most this many of the held-out cases."""
    seed: int = 42
    """Seeds Python, NumPy and torch when fine-tuning starts (worker processes draw their own)."""

    def __post_init__(self) -> None:
        for name in ("iterations", "batch_size", "views", "validation_every", "max_validation_cases"):
            require_at_least(name, getattr(self, name), 1)
        require_below_one("warmup_fraction", self.warmup_fraction)
        require_positive("learning_rate", self.learning_rate)
        for beta in self.betas:
            require_below_one("betas", beta)
        require_at_least("weight_decay", self.weight_decay, 0)
        if self.max_gradient_norm is not None:
            require_positive("max_gradient_norm", self.max_gradient_norm)
        require_at_least("cross_entropy_weight", self.cross_entropy_weight, 0)
        require_at_least("dice_weight", self.dice_weight, 0)
        require(
            self.cross_entropy_weight + self.dice_weight > 0, "cross_entropy_weight and dice_weight cannot both be 0"
        )
        require_seed(self.seed)
        require_fraction("shift_fraction", self.shift_fraction)
        require_fraction("bezier_probability", self.bezier_probability)

    @property
    def warmup_iterations(self) -> int:
        """W, the iterations over which the learning rate rises."""
        return round(self.warmup_fraction * self.iterations)


@dataclass(frozen=True, kw_only=True)
class PseudoLabelSettings:
    """Prediction of the unlabelled cases by overlapping patches."""

    tile_step_size: float = 0.5
    """Step between patches as a share of the patch (nnU-Net's meaning and default)."""
    use_mirroring: bool = False
    """Average over mirrored inputs: eight times the work in 3D."""
    measure_flip_agreement: bool = True
    """Predict each image once more for each of its axes, mirrored along it, and record how well the label maps agree:
    four times the work in 3D for the best measure of confidence that we know (docs/results.md)."""
    average_mirrored: bool = True
    """Let SAM label by the mean over the image and those mirrored images, which costs nothing on top (docs/results.md);
    without measure_flip_agreement there are none."""
    slice_smoothing: float = 0.0
    """Standard deviation in mm of a Gaussian that smooths SAM's probabilities across slices, which it sees side by
    side; 0 leaves them as they are, and a 2D configuration always does. Planning writes 2 (docs/results.md)."""
    decision: str = LARGEST_PROBABILITY
    """How SAM's probabilities become labels: largest_probability, or expected_dice, which finds for each case and class
    the threshold that promises the highest Dice. Planning writes expected_dice (docs/results.md)."""
    brighten_dark_cases: bool = False
    """Brighten a case that is far darker than every case SAM was fine-tuned on towards their mean before SAM labels
    it; for models that take images in [0, 1], and not for CT. Planning writes true (docs/results.md)."""

    def __post_init__(self) -> None:
        require(0.0 < self.tile_step_size <= 1.0, f"tile_step_size must lie in (0, 1], got {self.tile_step_size}")
        require_at_least("slice_smoothing", self.slice_smoothing, 0)
        require(
            self.decision in DECISION_RULES,
            f"decision must be one of {', '.join(DECISION_RULES)}, got {self.decision!r}",
        )


@dataclass(frozen=True, kw_only=True)
class PseudoWeightingSettings:
    """How far the re-training trusts each pseudo-label; with the defaults it trusts all alike."""

    case_measure: str | None = None
    """A case's share of the pseudo-label loss follows this number of its confidence record (the names are those of
    rounds.confidence, as expected_dice), relative to the mean of the pool; null weights all cases alike."""
    case_power: float = 1.0
    """The number is raised to this power first: above 1 cases of low confidence count for less."""
    voxel_power: float = 0.0
    """A voxel counts with ((q - q0) / (1 - q0)) ** voxel_power, q being the stored probability of its label and q0 that
    of a guess (1 / classes; with n regions 2 ** -n); 0 weights all voxels alike. Foreground that the highest expected
    Dice found below q0 weighs nothing then."""
    voxel_threshold: float = 0.0
    """Voxels whose label has a lower stored probability take no part; 0 takes all."""
    boundary_weight: float = 1.0
    """Weight of the voxels at a boundary of the label map, rising linearly to 1 over boundary_width voxels; 1 weights
    all voxels alike."""
    boundary_width: int = 2
    """Voxels on either side of a boundary over which that weight rises (diagonal steps count as one)."""
    soft_targets: bool = False
    """Learn the stored probability of the label instead of the label itself; the other classes share the rest evenly
    (exact for two classes; not for data sets with regions)."""
    falls_from: float = 0.0
    """Share of the run after which the weight of the loss falls linearly, until the end of the run."""
    final_share: float = 1.0
    """What is left of pseudo_label_weight at the end of the run; 1 lets it stay as it is."""

    def __post_init__(self) -> None:
        if self.case_measure is not None:
            require(
                self.case_measure in MEASURES,
                f"case_measure must be null or one of {', '.join(MEASURES)}, got {self.case_measure!r}",
            )
        require_positive("case_power", self.case_power)
        require_at_least("voxel_power", self.voxel_power, 0)
        require_fraction("voxel_threshold", self.voxel_threshold)
        require_fraction("boundary_weight", self.boundary_weight)
        require_at_least("boundary_width", self.boundary_width, 1)
        require_below_one("falls_from", self.falls_from)
        require_fraction("final_share", self.final_share)

    @property
    def needs_voxel_confidence(self) -> bool:
        """Whether patches come with the stored probability of each voxel's label."""
        return self.voxel_power > 0 or self.voxel_threshold > 0 or self.soft_targets

    @property
    def weights_voxels(self) -> bool:
        """Whether the voxels of a patch differ in weight."""
        return self.voxel_power > 0 or self.voxel_threshold > 0 or self.boundary_weight < 1

    @property
    def changes_the_loss(self) -> bool:
        """Whether the loss on pseudo-labels is any other than nnU-Net's (its weight aside)."""
        return self.case_measure is not None or self.weights_voxels or self.soft_targets


@dataclass(frozen=True, kw_only=True)
class RetrainingSettings(MethodSections):
    """Semi-supervised training of nnU-Net's network (paper, section III-B3; SFR code)."""

    epochs: int = 1000
    """nnU-Net's own; the suffix _<N>epochs of a trainer's name wins over it."""
    iterations_per_epoch: int = 250
    """Optimiser steps per epoch (nnU-Net's own)."""
    validation_iterations_per_epoch: int = 50
    """Batches that estimate the Dice after each epoch (nnU-Net's own); for a short try, lower both."""
    pseudo_label_weight: float = 0.5
    """w_p, the weight of the loss on pseudo-labels (SFR code: 1; docs/results.md compares)."""
    pseudo_weighting: PseudoWeightingSettings = dataclasses.field(default_factory=PseudoWeightingSettings)
    """How far each pseudo-label is trusted."""
    consistency_weight: float = 0.1
    """w_max, where the ramp of the consistency weight ends (SFR code)."""
    ramp_up_fraction: float = 1.0
    """R / T, the share of the run over which w(t) = w_max * exp(-5 * (1 - min(t, R) / R) ** 2) rises."""
    ema_decay: float = 0.99
    """Highest decay of the teacher: min(1 - 1 / (t + 1), ema_decay)."""
    teacher_noise_std: float = 0.1
    """Standard deviation of the Gaussian noise on the teacher's input, in standard deviations of the data."""
    teacher_noise_clip: float = 0.2
    """The noise is clamped to plus and minus this value."""
    seed: int = 42
    """Seeds Python, NumPy and torch when a training starts (worker processes draw their own)."""

    def __post_init__(self) -> None:
        for name in ("epochs", "iterations_per_epoch", "validation_iterations_per_epoch"):
            require_at_least(name, getattr(self, name), 1)
        for name in ("pseudo_label_weight", "consistency_weight", "teacher_noise_std", "teacher_noise_clip"):
            require_at_least(name, getattr(self, name), 0)
        require_seed(self.seed)
        require_fraction("ramp_up_fraction", self.ramp_up_fraction)
        require_below_one("ema_decay", self.ema_decay)


@dataclass(frozen=True, kw_only=True)
class RoundSettings:
    """SFR+: the rounds in which SAM and the re-training take turns (paper, section III-C)."""

    confidence: str = "joint_agreement"
    """What cases of high confidence are told from others by, a measure in the table below. docs/results.md compares
    them."""
    confidence_of: str = "model"
    """Whose confidence counts: model (the re-trained one) or sam (which is compared with no other labels, and so
    has neither joint_agreement nor agreement)."""
    threshold: float | None = None
    """Cases with at least this confidence are high (paper: 0.985 for eq. 8); null takes high_fraction."""
    high_fraction: float = 0.5
    """Without a threshold, the share of the unlabelled cases that is high: confidence cannot be compared between data
    sets."""
    fine_tuning_fraction: float = 0.5
    """Length of SAM's fine-tuning in one round, as a share of fine_tuning.iterations; at most 10."""
    retraining_fraction: float = 0.5
    """Length of the re-training in one round, as a share of retraining.epochs; at most 10. The suffix _<N>epochs of a
    trainer's name wins over it."""
    labelled_fraction: float = 0.5
    """Chance that a patch of SAM's fine-tuning comes from a labelled case, and not from one of high confidence."""
    model_share: float = 0.0
    """Share of the re-trained model's probabilities in SAM's labels of a round: (1 - share) SAM + share model. On the
    left atrium 0.3 is worth 0.005 Dice of the labels, and 0.5 loses (docs/results.md)."""

    def __post_init__(self) -> None:
        require(
            self.confidence in MEASURES,
            f"confidence must be one of {', '.join(MEASURES)}, got {self.confidence!r}",
        )
        require(
            self.confidence_of in CONFIDENCE_SOURCES,
            f"confidence_of must be one of {', '.join(CONFIDENCE_SOURCES)}, got {self.confidence_of!r}",
        )
        if self.threshold is not None:
            require_fraction("threshold", self.threshold)
        require_fraction("high_fraction", self.high_fraction)
        for name in ("fine_tuning_fraction", "retraining_fraction"):
            value = getattr(self, name)
            require(
                0.0 < value <= _LONGEST_ROUND,
                f"{name} must lie above 0 and at most at {_LONGEST_ROUND}, got {value}",
            )
        require_below_one("model_share", self.model_share)
        require(
            0.0 < self.labelled_fraction <= 1.0,
            f"labelled_fraction must lie above 0 and at most at 1, got {self.labelled_fraction}",
        )


_LONGEST_ROUND = 10
"""Times the length of round 0: more is a slip, and may not be a length that a computer can hold."""

FINE_TUNING_IN_ROUNDS = ("fine_tuning_fraction", "labelled_fraction")
"""The settings of the section ``rounds`` that fine-tuning reads."""


@dataclass(frozen=True, kw_only=True)
class CrossCheckSettings:
    """``sfr_crosscheck``: SAM, and nnU-Net beside it, in labelled cases that they are left without."""

    nnunet_iterations: int = 1000
    """With --with-nnunet, the optimiser steps of plain nnU-Net in each fold (four of its epochs; a whole training has
    250,000). On a CPU 300 to 500 say enough on a coarse grid."""

    def __post_init__(self) -> None:
        require_at_least("nnunet_iterations", self.nnunet_iterations, 1)


def section_from_dict(section: type[Section], values: Any) -> Section:
    """Build one settings section from JSON values.

    Args:
        section: one of the dataclasses above.
        values: a JSON object; keys that are missing take their default.

    Raises:
        ValueError: an unknown or missing key, a value of the wrong type, or one that fails the section's check.
    """
    require(isinstance(values, dict), f"expected an object, got {type(values).__name__}")
    fields = {field.name: field for field in dataclasses.fields(section)}  # type: ignore[arg-type]
    unknown = sorted(set(values) - set(fields))
    require(not unknown, f"unknown setting {', '.join(unknown)} (known: {', '.join(fields)})")
    missing = [name for name, field in fields.items() if name not in values and not _has_default(field)]
    require(not missing, f"missing setting {', '.join(missing)}")
    hints = typing.get_type_hints(section)
    return section(**{name: _coerce(name, value, hints[name]) for name, value in values.items()})


def _subsection(name: str, value: Any, section: Any) -> Any:
    if isinstance(value, section):
        return value
    try:
        return section_from_dict(section, value)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def _has_default(field: dataclasses.Field[Any]) -> bool:
    return field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING


def _coerce(name: str, value: Any, hint: Any) -> Any:
    """Give ``value`` the type that the field declares; JSON has lists for tuples and 1 for 1.0."""
    if dataclasses.is_dataclass(hint):
        return _subsection(name, value, hint)
    origin = typing.get_origin(hint)
    if origin is tuple:
        arguments = typing.get_args(hint)
        if arguments[-1] is Ellipsis:
            require(isinstance(value, (list, tuple)), f"{name} must be a list, got {value!r}")
            return tuple(_coerce(name, item, arguments[0]) for item in value)
        require(
            isinstance(value, (list, tuple)) and len(value) == len(arguments),
            f"{name} must be a list of {len(arguments)} numbers, got {value!r}",
        )
        return tuple(_coerce(name, item, argument) for item, argument in zip(value, arguments, strict=True))
    if origin is Mapping:
        require(isinstance(value, Mapping), f"{name} must be an object, got {value!r}")
        return dict(value)
    if origin in (types.UnionType, typing.Union):
        options = [option for option in typing.get_args(hint) if option is not type(None)]
        return None if value is None else _coerce(name, value, options[0])
    if hint is int and isinstance(value, int):
        require(value <= LARGEST_INT, f"{name} must be at most {LARGEST_INT}, got a larger number")
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        require(abs(value) < LARGEST_FLOAT, f"{name} must be a finite number, got a larger one")
        value = float(value)
    wrong = not isinstance(value, hint) or (hint is not bool and isinstance(value, bool))
    require(not wrong, f"{name} must be of type {hint.__name__}, got {value!r}")
    # JSON as Python reads it has NaN, and 1e999 is infinite
    require(hint is not float or math.isfinite(value), f"{name} must be a finite number, got {value}")
    return value
