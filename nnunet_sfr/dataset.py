"""One nnU-Net data set as the SFR stages see it: its plans, labels, SFR settings and paths, opened and checked once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnunet_sfr.atomic import write_json
from nnunet_sfr.data.label_grid import label_grid
from nnunet_sfr.data.preprocessed_files import list_preprocessed, require_files
from nnunet_sfr.errors import UserError
from nnunet_sfr.folds import FOLDS, check_fold, split_of_fold
from nnunet_sfr.label_names import class_names
from nnunet_sfr.nnunet_json import NO_CASCADE, read_dataset_json, read_plans, read_splits, resolved_configuration
from nnunet_sfr.paths import DatasetPaths, Fold, SFRPaths, resolve_dataset_name
from nnunet_sfr.plans import SFRConfiguration, choose_configuration, choose_plans, load_configuration

if TYPE_CHECKING:
    from nnunetv2.utilities.label_handling.label_handling import LabelManager
    from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager


@dataclass(frozen=True)
class SFRDataset:
    """A planned data set in one configuration.

    Opening one and reading what is planned does not import nnU-Net, which takes seconds; its managers do.

    Args:
        paths: where its files lie.
        plans: nnU-Net's plan, with all its configurations.
        dataset_json: nnU-Net's ``dataset.json``.
        slice_axis: for the SAM of this axis alone (:attr:`planes`); None for all of ``stitching.slice_axes``.
        splits: identifiers to train and to validate on, by fold, instead of nnU-Net's; they are not written.
    """

    paths: SFRPaths
    plans: dict[str, Any]
    dataset_json: dict[str, Any]
    slice_axis: int | None = None
    splits: tuple[tuple[list[str], list[str]], ...] | None = None

    @cached_property
    def plans_manager(self) -> PlansManager:
        """nnU-Net's plan, as its functions take it."""
        from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

        return PlansManager(self.plans)

    @property
    def configuration_manager(self) -> ConfigurationManager:
        """The configuration of that plan, as nnU-Net's functions take it."""
        return self.plans_manager.get_configuration(self.paths.configuration)

    @property
    def configuration(self) -> dict[str, Any]:
        """The same as it stands in the plan, with what it inherits."""
        return resolved_configuration(self.plans, self.paths.configuration, self.paths.plans_file)

    @property
    def foreground_intensities(self) -> dict[str, dict[str, float]]:
        """nnU-Net's statistics of the labelled foreground by channel, for the normalisation of CT."""
        statistics: dict[str, dict[str, float]] = self.plans["foreground_intensity_properties_per_channel"]
        return statistics

    @cached_property
    def settings(self) -> SFRConfiguration:
        """The SFR plan of this configuration, validated against nnU-Net's plan as it is now."""
        settings = load_configuration(
            self.paths.sfr_plans_file,
            self.paths.configuration,
            nnunet_plans=self.plans,
            nnunet_configuration=self.configuration,
        )
        if self.slice_axis is None:
            return settings
        return replace(settings, stitching=replace(settings.stitching, slice_axes=(self.slice_axis,)))

    @property
    def planes(self) -> list[SFRDataset]:
        """This data set once for each axis across which patches are cut into slices, in the order of the setting.

        Each has that axis alone in its settings, and a SAM of its own; that of the first lies where the only one lies
        if there is one axis.
        """
        first, *others = self.settings.stitching.slice_axes
        return [
            replace(self, slice_axis=first),
            *(replace(self, slice_axis=axis, paths=replace(self.paths, plane=axis)) for axis in others),
        ]

    @property
    def grid(self) -> dict[str, Any]:
        """What a label map on the preprocessed grid depends on: the grid itself, and what its values mean."""
        return label_grid(self.settings.derived_from, self.dataset_json)

    @property
    def label_manager(self) -> LabelManager:
        return self.plans_manager.get_label_manager(self.dataset_json)

    @property
    def num_classes(self) -> int:
        """Number of label values, background included and the ignore label not (also where regions are trained)."""
        labels = self.label_manager
        return len([label for label in labels.all_labels if label != labels.ignore_label])

    @property
    def class_names(self) -> dict[str, str]:
        """:func:`nnunet_sfr.label_names.class_names`: name of every foreground label value, which is given as text."""
        return class_names(self.dataset_json)

    @property
    def num_input_channels(self) -> int:
        from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels

        channels: int = determine_num_input_channels(self.plans_manager, self.configuration_manager, self.dataset_json)
        return channels

    def split(self, fold: Fold) -> tuple[list[str], list[str]]:
        """Labelled cases to train and to validate on, as nnU-Net splits them; fold ``all`` has every case in both.

        nnU-Net's ``splits_final.json`` counts where it exists, and nnU-Net's rule for making it where not. Nothing is
        written.

        Args:
            fold: a number, or ``all``.

        Returns:
            identifiers to train on and identifiers to validate on.

        Raises:
            UserError: the fold cannot exist, or the labelled cases are not preprocessed.
        """
        if self.splits is not None:
            return self.splits[int(fold)]
        identifiers = self.labelled_identifiers()
        if fold == "all":
            return identifiers, list(identifiers)
        splits_file = self.paths.splits_file
        if splits_file.is_file():
            training, validation = _read_split(splits_file, fold)
        else:
            check_fold(fold, len(identifiers))
            made = make_splits(identifiers)[int(fold)]
            training, validation = made["train"], made["val"]
        missing = sorted({*training, *validation} - set(identifiers))
        if missing:
            raise UserError(
                f"{splits_file}: fold {fold} names {missing[0]}, which is no preprocessed labelled case; take it out, "
                "or give it an image and labels and run sfr_plan_and_preprocess again"
            )
        return training, validation

    def write_split(self, fold: Fold) -> None:
        """Keep the folds for every later step and for nnU-Net: write ``splits_final.json`` unless it exists.

        Args:
            fold: to be trained; fold ``all`` needs no file.

        Raises:
            UserError: the fold cannot exist, or the labelled cases are not preprocessed.
        """
        self.split(fold)
        if self.splits is None and fold != "all" and not self.paths.splits_file.is_file():
            write_json(make_splits(self.labelled_identifiers()), self.paths.splits_file)

    def labelled_identifiers(self) -> list[str]:
        """The preprocessed labelled cases, sorted.

        Raises:
            UserError: there are none.
        """
        folder = self.paths.labelled
        identifiers = list_preprocessed(folder)
        if not identifiers:
            raise UserError(f"{folder}: no preprocessed labelled cases; run sfr_plan_and_preprocess first")
        require_files(folder, identifiers)
        return identifiers


def open_dataset(
    dataset_name_or_id: str | int, configuration: str | None = None, plans_name: str | None = None
) -> SFRDataset:
    """Open a data set that has been planned.

    Args:
        dataset_name_or_id: ``Dataset042_Heart`` or 42.
        configuration: of nnU-Net's plan, such as ``3d_fullres``; None for that, or the only one that was planned.
        plans_name: of nnU-Net's plan; None for nnU-Net's default, or the only one with an SFR plan.

    Raises:
        UserError: an nnU-Net variable is not set, or there is no such data set, plan or configuration, or one of their
            files is damaged.
    """
    paths = DatasetPaths(resolve_dataset_name(dataset_name_or_id))
    plans_name = choose_plans(paths, plans_name)
    remedy = f"run sfr_plan_and_preprocess -d {dataset_name_or_id} first"
    file = paths.preprocessed / f"{plans_name}.json"
    others = paths.sfr_plans_names()
    if others and not file.is_file():
        raise UserError(f"{file}: not found; this data set has {', '.join(others)}: choose with -p")
    plans = read_plans(file, remedy)
    dataset_json = read_dataset_json(paths.dataset_json, remedy)
    configuration = choose_configuration(paths, plans_name, configuration)
    resolved = resolved_configuration(plans, configuration, file)
    if resolved.get("previous_stage") is not None:
        raise UserError(f"{configuration} {NO_CASCADE}")
    return SFRDataset(
        SFRPaths(paths.dataset_name, plans_name, configuration, resolved["data_identifier"]),
        plans,
        dataset_json,
    )


def make_splits(identifiers: list[str], count: int = FOLDS) -> list[dict[str, list[str]]]:
    """Folds by nnU-Net's own function and seed.

    Args:
        identifiers: of the labelled cases, at least as many as folds.
        count: number of folds.

    Returns:
        ``train`` and ``val`` of every fold.
    """
    # brings scikit-learn, whose import takes as long as that of torch
    from nnunetv2.utilities.crossval_split import generate_crossval_split

    splits = generate_crossval_split(identifiers, seed=12345, n_splits=count)
    return [{part: [str(case) for case in split[part]] for part in ("train", "val")} for split in splits]


def _read_split(file: Path, fold: Fold) -> tuple[list[str], list[str]]:
    split = split_of_fold(file, read_splits(file), fold)
    return split["train"], split["val"]
