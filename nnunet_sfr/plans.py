"""The SFR plan: what SFR decided for each configuration of an nnU-Net plan, stored beside it and open to edit.

The file ``<plans>_SFRPlans.json`` has one entry per nnU-Net configuration with the sections of
:mod:`nnunet_sfr.settings`. It remembers the parts of the nnU-Net configuration that it was derived from, so that a plan
made for another target spacing is refused instead of silently used.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nnunet_sfr import __version__
from nnunet_sfr.atomic import write_json
from nnunet_sfr.command_lines import DEFAULT_CONFIGURATION, DEFAULT_PLANS
from nnunet_sfr.errors import UserError
from nnunet_sfr.json_files import as_json, first_difference, read_json
from nnunet_sfr.paths import SFR_PLANS_ENDING, DatasetPaths
from nnunet_sfr.settings import (
    CrossCheckSettings,
    FineTuningSettings,
    PseudoLabelSettings,
    RetrainingSettings,
    RoundSettings,
    SAMSettings,
    StitchingSettings,
    section_from_dict,
)

DERIVED_FROM_KEYS = ("data_identifier", "spacing", "normalization_schemes", "use_mask_for_norm")
"""Keys of an nnU-Net configuration that change the preprocessed grid or its intensities."""

_SECTIONS: dict[str, type] = {
    "stitching": StitchingSettings,
    "sam": SAMSettings,
    "fine_tuning": FineTuningSettings,
    "pseudo_labels": PseudoLabelSettings,
    "retraining": RetrainingSettings,
    "rounds": RoundSettings,
    "crosscheck": CrossCheckSettings,
}


@dataclass(frozen=True, kw_only=True)
class SFRConfiguration:
    """All settings of one nnU-Net configuration."""

    stitching: StitchingSettings
    sam: SAMSettings = field(default_factory=SAMSettings)
    fine_tuning: FineTuningSettings = field(default_factory=FineTuningSettings)
    pseudo_labels: PseudoLabelSettings = field(default_factory=PseudoLabelSettings)
    retraining: RetrainingSettings = field(default_factory=RetrainingSettings)
    rounds: RoundSettings = field(default_factory=RoundSettings)
    crosscheck: CrossCheckSettings = field(default_factory=CrossCheckSettings)
    derived_from: Mapping[str, Any] = field(default_factory=dict)
    """The values of ``DERIVED_FROM_KEYS`` and ``transpose_forward`` in the nnU-Net plan at planning time."""

    def to_dict(self) -> dict[str, Any]:
        return {
            "derived_from": dict(self.derived_from),
            **{name: dataclasses.asdict(getattr(self, name)) for name in _SECTIONS},
        }

    @classmethod
    def from_dict(cls, values: Any) -> SFRConfiguration:
        """Inverse of :meth:`to_dict`.

        Raises:
            ValueError: naming the section and what is wrong in it.
        """
        if not isinstance(values, dict):
            raise ValueError(f"expected an object, got {type(values).__name__}")
        unknown = sorted(set(values) - set(_SECTIONS) - {"derived_from"})
        if unknown:
            raise ValueError(f"unknown section {', '.join(unknown)} (known: {', '.join(_SECTIONS)})")
        if "stitching" not in values:
            raise ValueError("the section stitching is missing")
        sections: dict[str, Any] = {}
        values = _of_earlier_versions(values)
        for name, section in _SECTIONS.items():
            try:
                sections[name] = section_from_dict(section, values.get(name, {}))
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
        return cls(derived_from=values.get("derived_from", {}), **sections)


_MOVED_TO_METHODS = {
    "acmt_threshold_start": ("acmt", "threshold_start"),
    "acmt_threshold_rise": ("acmt", "threshold_rise"),
    "magicnet_cubes_per_axis": ("magicnet", "cubes_per_axis"),
    "magicnet_position_weight": ("magicnet", "position_weight"),
    "magicnet_blending_start": ("magicnet", "blending_start"),
    "magicnet_statistics_window": ("magicnet", "statistics_window"),
    "magicnet_class_temperature": ("magicnet", "class_temperature"),
    "ict_alpha": ("ict", "alpha"),
    "relabel_at": ("st", "relabel_at"),
}
"""Where the settings of a method are that plans of version 0.1 had among those of all methods."""


def _of_earlier_versions(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """The sections with the settings of today in the place of those that earlier versions had."""
    values = _warmup_of_version_0_1(_rank_of_version_0_1(_one_slice_axis_before_0_2(values)))
    if isinstance(values.get("retraining"), dict):
        values = {**values, "retraining": retraining_of_today(values["retraining"])}
    return values


def retraining_of_today(values: Mapping[str, Any]) -> dict[str, Any]:
    """The section ``retraining`` as earlier versions wrote it, with every setting of a method in the method's section.

    Args:
        values: the section, of any version.

    Raises:
        ValueError: a setting stands in both places.
    """
    kept = {name: value for name, value in values.items() if name not in _MOVED_TO_METHODS}
    for name in values.keys() & _MOVED_TO_METHODS.keys():
        section, setting = _MOVED_TO_METHODS[name]
        there = kept.get(section, {})
        if not isinstance(there, dict):
            continue  # the check of the section says what is wrong
        if setting in there:
            raise ValueError(f"retraining: {name} is {section}.{setting} now, which is there too; remove {name}")
        kept[section] = {**there, setting: values[name]}
    return kept


def _rank_of_version_0_1(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Plans of version 0.1 had the rank of LoRA among the settings of SAM, whatever the adaptation."""
    sam = values.get("sam")
    if not isinstance(sam, dict) or "lora_rank" not in sam:
        return values
    kept = {key: value for key, value in sam.items() if key != "lora_rank"}
    if sam.get("adaptation") == "lora":
        kept["adaptation_settings"] = {"rank": sam["lora_rank"]}
    return {**values, "sam": kept}


def _one_slice_axis_before_0_2(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Plans between versions 0.1 and 0.2 named one axis across which patches are cut into slices."""
    stitching = values.get("stitching")
    if not isinstance(stitching, dict) or "slice_axis" not in stitching:
        return values
    others = {key: value for key, value in stitching.items() if key != "slice_axis"}
    return {**values, "stitching": {"slice_axes": [stitching["slice_axis"]], **others}}


def complete_sections(sections: Mapping[str, Any]) -> dict[str, Any]:
    """Some sections of a plan as this version writes them, also where an earlier version wrote them.

    Args:
        sections: values by name of the section; what no version can read stays as it is.

    Returns:
        every setting of these sections by its name of today, in JSON's types.
    """
    complete: dict[str, Any] = {}
    for name, values in _of_earlier_versions(sections).items():
        try:
            complete[name] = dataclasses.asdict(section_from_dict(_SECTIONS[name], values))
        except (KeyError, ValueError):
            complete[name] = values
    return as_json(complete)


def _warmup_of_version_0_1(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Plans of version 0.1 had the length of the warm-up in iterations, which shorter runs had to lower too."""
    section = values.get("fine_tuning")
    if not isinstance(section, dict) or "warmup_iterations" not in section:
        return values
    kept = {key: value for key, value in section.items() if key != "warmup_iterations"}
    iterations = kept.get("iterations", FineTuningSettings.iterations)
    warmup = section["warmup_iterations"]
    if not all(isinstance(value, int) and not isinstance(value, bool) for value in (warmup, iterations)):
        raise ValueError(f"fine_tuning: warmup_iterations must be of type int, got {warmup!r}; or give warmup_fraction")
    if "warmup_fraction" in section:
        raise ValueError("fine_tuning: warmup_iterations and warmup_fraction are one setting; remove warmup_iterations")
    if not 0 <= warmup < iterations:
        raise ValueError(
            f"fine_tuning: warmup_iterations ({warmup}) must be fewer than iterations ({iterations}); lower both, or "
            "put warmup_fraction, a share of the run, in its place"
        )
    return {**values, "fine_tuning": {**kept, "warmup_fraction": warmup / iterations}}


def derived_from(nnunet_plans: Mapping[str, Any], nnunet_configuration: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a (resolved) nnU-Net configuration that an SFR configuration depends on, in JSON's types.

    Args:
        nnunet_plans: content of nnU-Net's plans file.
        nnunet_configuration: one of its configurations, with what it inherits.
    """
    values = {key: nnunet_configuration[key] for key in DERIVED_FROM_KEYS}
    values["transpose_forward"] = nnunet_plans["transpose_forward"]
    return as_json(values)


def save_configuration(
    file: Path, *, dataset_name: str, plans_name: str, configuration: str, settings: SFRConfiguration
) -> None:
    """Write one configuration into the SFR plan, keeping the others that are there.

    Args:
        file: the SFR plan; made if it is not there.
        dataset_name: nnU-Net's full name.
        plans_name: of nnU-Net's plan.
        configuration: of that plan, such as ``3d_fullres``.
        settings: to write.
    """
    content = read_sfr_plan(file) if file.is_file() else {"configurations": {}}
    content.update(nnunet_sfr_version=__version__, dataset_name=dataset_name, plans_name=plans_name)
    content["configurations"][configuration] = settings.to_dict()
    write_json(content, file)


def load_configuration(
    file: Path,
    configuration: str,
    *,
    nnunet_plans: Mapping[str, Any],
    nnunet_configuration: Mapping[str, Any],
) -> SFRConfiguration:
    """Read and validate one configuration of an SFR plan.

    Args:
        file: ``<plans>_SFRPlans.json``.
        configuration: nnU-Net's name of it.
        nnunet_plans: the nnU-Net plan as it is now.
        nnunet_configuration: the resolved nnU-Net configuration (``ConfigurationManager.configuration``).

    Raises:
        UserError: no such file or configuration, a setting that does not pass, or a plan that was made for another
            version of the nnU-Net plan.
    """
    remedy = f"run sfr_plan_and_preprocess with -c {configuration}"
    if not file.is_file():
        raise UserError(f"{file}: there is no SFR plan yet; {remedy}")
    configurations = read_sfr_plan(file)["configurations"]
    if configuration not in configurations:
        raise UserError(f"{file}: no configuration {configuration} (it has {', '.join(configurations)}); {remedy}")
    try:
        settings = SFRConfiguration.from_dict(configurations[configuration])
    except ValueError as error:
        raise UserError(f"{file}: configuration {configuration}: {error}") from None
    now = derived_from(nnunet_plans, nnunet_configuration)
    key = first_difference(now, settings.derived_from)
    if key is not None:
        raise UserError(
            f"{file}: made for {key} {settings.derived_from[key]}, but the nnU-Net plan now has {now.get(key)}; "
            f"{remedy} again"
        )
    return settings


def read_sfr_plan(file: Path, remedy: str = "correct it, or delete it and plan again") -> dict[str, Any]:
    """The SFR plan as it is on disk: ``configurations``, an object for each, whose settings are not checked yet.

    ``derived_from`` is an object where it is there: it is no setting, and some readers take nothing else.

    Args:
        file: to read.
        remedy: what to do if it cannot be read, for the error.

    Raises:
        UserError: it is missing or no SFR plan.
    """
    return read_json(file, remedy, {"configurations": {...: {"derived_from?": {}}}})


def choose_plans(paths: DatasetPaths, given: str | None) -> str:
    """The nnU-Net plans to work with: those that were named, nnU-Net's default, or the only ones with an SFR plan.

    Args:
        paths: of the data set.
        given: after ``-p``; None where it was left out.

    Raises:
        UserError: there are several, and none has nnU-Net's default name.
    """
    if given is not None:
        return given
    names = paths.sfr_plans_names()
    if not names or DEFAULT_PLANS in names:
        return DEFAULT_PLANS
    if len(names) > 1:
        raise UserError(f"{paths.preprocessed}: has several plans; choose with -p from {', '.join(names)}")
    return names[0]


def choose_configuration(paths: DatasetPaths, plans_name: str, given: str | None) -> str:
    """The nnU-Net configuration to work with: the one that was named, 3d_fullres, or the only one that was planned.

    Args:
        paths: of the data set.
        plans_name: nnU-Net's plans identifier.
        given: after ``-c``; None where it was left out.

    Raises:
        UserError: there are several, and none is 3d_fullres, or the SFR plan is damaged.
    """
    file = paths.preprocessed / f"{plans_name}{SFR_PLANS_ENDING}"
    if given is not None or not file.is_file():
        return given if given is not None else DEFAULT_CONFIGURATION
    names: list[str] = list(read_sfr_plan(file)["configurations"])
    if not names or DEFAULT_CONFIGURATION in names:
        return DEFAULT_CONFIGURATION
    if len(names) > 1:
        raise UserError(f"{file}: has several configurations; choose with -c from {', '.join(names)}")
    return names[0]
