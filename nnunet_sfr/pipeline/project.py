"""The files of a data set that the steps read and write, found without nnU-Net, which takes ten seconds to import."""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from nnunet_sfr.data.image_names import check_images_to_predict
from nnunet_sfr.data.label_grid import label_grid
from nnunet_sfr.data.preprocessed_files import PROPERTIES_ENDING
from nnunet_sfr.data.sidecars import sidecars
from nnunet_sfr.data.store_files import case_files
from nnunet_sfr.errors import UserError
from nnunet_sfr.folds import require_fold, require_same_folds, split_of_fold
from nnunet_sfr.nnunet_json import (
    WRITE_DATASET_JSON,
    check_configuration,
    read_dataset_json,
    read_plans,
    read_splits,
    resolved_configuration,
)
from nnunet_sfr.paths import FINAL_ADAPTER, FINAL_OPTIMIZER, MANIFEST, SFRPaths
from nnunet_sfr.pipeline.options import RunOptions
from nnunet_sfr.plans import SFRConfiguration, read_sfr_plan


class Project:
    """The files behind one call of ``sfr_run``; what depends on the plan exists once there is one.

    Args:
        options: of the call.
    """

    def __init__(self, options: RunOptions) -> None:
        self.options = options
        # the folders of the preprocessed cases have to wait for the plan
        self.paths = SFRPaths(options.dataset_name, options.plans, options.configuration, data_identifier="")

    # --- raw ---

    def raw_images(self) -> list[Path]:
        cases = self._listed_cases()
        return [image for images, _ in cases for image in images] if cases else visible_files(self.paths.raw_labelled)

    def raw_labels(self) -> list[Path]:
        cases = self._listed_cases()
        return [file for _, label in cases for file in label] if cases else visible_files(self.paths.raw_labels)

    def raw_unlabelled(self) -> list[Path]:
        return visible_files(self.paths.raw_unlabelled)

    def _listed_cases(self) -> list[tuple[list[Path], list[Path]]]:
        """Images and label of the labelled cases where dataset.json names them, with what belongs to each."""
        content = self.raw_dataset_json()
        ending = content.get("file_ending", "")
        cases = []
        for case in content.get("dataset", {}).values():
            images = [self.paths.raw / os.path.expandvars(image) for image in case["images"]]
            label = self.paths.raw / os.path.expandvars(case["label"])
            cases.append(([*images, *sidecars(images, ending)], [label, *sidecars([label], ending, is_label=True)]))
        return cases

    def raw_is_here(self) -> bool:
        """Whether the raw images are on this machine: once they are preprocessed, nothing here needs them."""
        if not self.paths.raw_is_here():
            return False
        folders = (self.paths.raw_labelled, self.paths.raw_unlabelled)
        if any(visible_files(folder) for folder in folders):
            return True
        return self.paths.raw_dataset_json.is_file() and any(image.exists() for image in self.raw_images())

    def has_one_slice(self) -> bool:
        """Whether the raw images have no depth, which nnU-Net plans in 2D alone; by the header of one of them."""
        import SimpleITK

        # what belongs to images, the spacing of TIFF volumes for example, may come first by name
        ending = self.raw_dataset_json()["file_ending"]
        images = [image for image in [*self.raw_images(), *self.raw_unlabelled()] if image.name.endswith(ending)]
        for image in images[:1]:
            reader = SimpleITK.ImageFileReader()
            reader.SetFileName(str(image))
            with contextlib.suppress(RuntimeError):  # planning says what is wrong with it
                reader.ReadImageInformation()
                return all(length == 1 for length in reader.GetSize()[2:3])
        return False

    def num_labelled(self) -> int:
        """Number of labelled cases, raw or preprocessed."""
        if not self.raw_is_here():
            return len(self.properties(unlabelled=False))
        # what belongs to label maps, the spacing of TIFF volumes for example, does not count
        ending = self.raw_dataset_json()["file_ending"]
        return len(self._listed_cases() or visible_files(self.paths.raw_labels, ending))

    def raw_dataset_json(self) -> dict[str, Any]:
        return read_dataset_json(self.paths.raw_dataset_json, WRITE_DATASET_JSON)

    # --- planned ---

    def cases_folder(self, *, unlabelled: bool) -> Path:
        """The preprocessed cases; two configurations can share one folder, which the plan names."""
        paths = replace(self.paths, data_identifier=self.network_plan()["configuration"]["data_identifier"])
        return paths.unlabelled if unlabelled else paths.labelled

    def network_plan(self) -> dict[str, Any]:
        """nnU-Net's plan without its other configurations, what ours inherits filled in."""
        return self.network_plan_of(read_plans(self.paths.plans_file))

    def network_plan_of(self, plans: dict[str, Any], file: Path | None = None) -> dict[str, Any]:
        """The same of any ``plans.json``.

        Args:
            plans: its content.
            file: where it is from; None for the plan of the project.

        Raises:
            UserError: it does not have our configuration.
        """
        resolved = resolved_configuration(plans, self.options.configuration, file or self.paths.plans_file)
        others = ("configurations", "continue_training")  # the latter is how nnUNetv2_train was called
        return {**{key: value for key, value in plans.items() if key not in others}, "configuration": resolved}

    def sfr_plan(self) -> dict[str, Any]:
        """The sections of our configuration in the SFR plan."""
        content = read_sfr_plan(self.paths.sfr_plans_file)
        sections: dict[str, Any] = content["configurations"].get(self.options.configuration, {})
        return sections

    def label_grid(self) -> dict[str, Any]:
        """What label maps of today fit, as :attr:`nnunet_sfr.dataset.SFRDataset.grid` has it."""
        return label_grid(self.sfr_plan().get("derived_from", {}), read_dataset_json(self.paths.dataset_json))

    def check(self) -> None:
        """Check what a step would refuse after minutes: configuration, fold, folds and, if there is one, the SFR plan.

        Raises:
            UserError: one of them does not pass.
        """
        plan_is_whole = self._plan_is_whole()
        check_configuration(self.options.configuration, self.paths.plans_file if plan_is_whole else None)
        if self.raw_is_here() or plan_is_whole:
            require_fold(self.paths, self.options.fold, self.num_labelled())
        else:
            self.raw_dataset_json()
        if self.options.fold != "all":
            require_same_folds(self.paths, with_added_cases=True)
        if not self.paths.sfr_plans_file.is_file() or not self.sfr_plan():
            return
        try:
            SFRConfiguration.from_dict(self.sfr_plan())
        except ValueError as error:
            raise UserError(
                f"{self.paths.sfr_plans_file}: configuration {self.options.configuration}: {error}"
            ) from None

    def is_planned(self) -> bool:
        """Whether both plans have our configuration.

        Raises:
            UserError: one of them is damaged.
        """
        files = (self.paths.plans_file, self.paths.sfr_plans_file)
        if not all(file.is_file() for file in files):
            return False
        plans = (read_plans(files[0]), read_sfr_plan(files[1]))
        return all(self.options.configuration in plan["configurations"] for plan in plans)

    def _plan_is_whole(self) -> bool:
        """Whether nnU-Net's plan is not cut short by a kill; the step that makes it removes such a one.

        Raises:
            UserError: it is no plan.
        """
        try:
            json.loads(self.paths.plans_file.read_bytes())
        except (OSError, ValueError):
            return False
        if self.is_planned():
            self.network_plan()
        return True

    def properties(self, *, unlabelled: bool) -> list[Path]:
        """The ``.pkl`` of every preprocessed case, which says what the case was made from."""
        return visible_files(self.cases_folder(unlabelled=unlabelled), PROPERTIES_ENDING)

    def split(self) -> Any:
        """The entry of nnU-Net's splits file for our fold; None for fold ``all``."""
        fold = self.options.fold
        if not isinstance(fold, int):
            return None
        file = self.paths.splits_file
        return split_of_fold(file, read_splits(file), fold)

    # --- results ---

    def adapter(self, round_index: int) -> Path:
        return self.paths.sam_stage(self.options.fold, round_index) / FINAL_ADAPTER

    def optimizer(self, round_index: int) -> Path:
        return self.paths.sam_stage(self.options.fold, round_index) / FINAL_OPTIMIZER

    def store(self, round_index: int, *, of_model: bool = False) -> Path:
        """Folder of the pseudo-label store of a round.

        Args:
            round_index: 0 for SFR, from 1 on for SFR+.
            of_model: whether it is that of the re-trained model's labels, which are made before the round.
        """
        fold = self.options.fold
        if of_model:
            return self.paths.model_pseudo_labels(fold, round_index)
        return self.paths.pseudo_labels(fold, round_index=round_index)

    def selection(self, round_index: int) -> Path:
        return self.paths.selection(self.options.fold, round_index)

    def store_files(self, folder: Path) -> list[Path]:
        """Manifest, record and label map of every unlabelled case."""
        cases = [file.stem for file in self.properties(unlabelled=True)]
        return [folder / MANIFEST, *(file for case in cases for file in case_files(folder, case)[:2])]

    def training(self, trainer: str) -> Path:
        return self.paths.training(trainer, self.options.fold)

    # --- prediction ---

    def input_images(self) -> list[Path]:
        """With what belongs to them."""
        assert self.options.images is not None
        images = visible_files(self.options.images, self._file_ending())
        return [*images, *sidecars(images, self._file_ending())]

    def check_input_images(self) -> None:
        """Check the names of the images to predict before hours of training.

        Raises:
            UserError: nnU-Net would pass over one, or cut its name.
        """
        assert self.options.images is not None
        file = self.paths.raw_dataset_json
        # the raw data may have been moved away since
        content = read_dataset_json(file if file.is_file() else self.paths.dataset_json)
        channels = content.get("channel_names", content.get("modality", {}))
        check_images_to_predict(self.options.images, len(channels), content["file_ending"])

    def predicted_files(self) -> list[Path]:
        """One for every case among the input images."""
        assert self.options.images is not None
        assert self.options.predictions is not None
        ending = self._file_ending()
        channel = len("_0000") + len(ending)
        cases = {image.name[:-channel] for image in visible_files(self.options.images, ending)}
        return [self.options.predictions / f"{case}{ending}" for case in sorted(cases)]

    def _file_ending(self) -> str:
        ending: str = read_dataset_json(self.paths.dataset_json)["file_ending"]
        return ending


def visible_files(folder: Path, ending: str = "") -> list[Path]:
    """The files in a folder, without hidden ones, sorted; none if there is no such folder.

    Args:
        folder: need not exist.
        ending: of their names.
    """
    entries = folder.iterdir() if folder.is_dir() else []
    return sorted(entry for entry in entries if not entry.name.startswith(".") and entry.name.endswith(ending))
