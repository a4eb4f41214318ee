"""A tiny data set, planned and preprocessed, with schedules of a few steps: what tests of later stages start from."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunet_sfr.data.datasets import UnlabelledDataset
from nnunet_sfr.data.provenance import Provenance
from nnunet_sfr.data.pseudo_label_store import PseudoLabelStore
from nnunet_sfr.dataset import SFRDataset, open_dataset
from nnunet_sfr.paths import Fold
from nnunet_sfr.planning import fingerprint
from nnunet_sfr.planning.pipeline import plan_and_preprocess
from nnunet_sfr.trainers import find_trainer
from tests.tiny_dataset import NAME, make_raw_dataset

PLANS = "nnUNetPlansCPU"
SHORT: dict[str, dict[str, Any]] = {
    "fine_tuning": {"iterations": 4, "validation_every": 2, "warmup_fraction": 0.25},
    "retraining": {"epochs": 2, "iterations_per_epoch": 2, "validation_iterations_per_epoch": 1},
}


@contextmanager
def nnunet_folders(root: Path) -> Iterator[None]:
    """Point nnU-Net's three variables below ``root`` while the context lasts."""
    with pytest.MonkeyPatch.context() as patch:
        for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
            (root / variable).mkdir(parents=True, exist_ok=True)
            patch.setenv(variable, str(root / variable))
        yield


def make_project(
    root: Path, configuration: str = "3d_fullres", *, target_spacing: Sequence[float] | None = None, **raw_options: Any
) -> SFRDataset:
    """Make, plan and preprocess a tiny data set; the caller is inside :func:`nnunet_folders`."""
    make_raw_dataset(root / "nnUNet_raw", **raw_options)
    return plan_project(configuration, target_spacing=target_spacing)


def plan_project(
    configuration: str = "3d_fullres", *, target_spacing: Sequence[float] | None = None, sam: str = "vit_tiny"
) -> SFRDataset:
    """Plan and preprocess the tiny data set that lies in ``nnUNet_raw``."""
    # nnU-Net's hundred million intensity samples cost seconds and say nothing more about a blob in noise
    with mock.patch.object(fingerprint, "FOREGROUND_SAMPLES", 6000):
        plan_and_preprocess(
            NAME,
            configurations=[configuration],
            planner="ExperimentPlannerCPU",
            target_spacing=target_spacing,
            sam=sam,
            fingerprint_processes=1,
            processes=1,
        )
    dataset = open_dataset(NAME, configuration, PLANS)
    # with the planned 16 to 64, tests of trainers would take twice as long
    set_features(dataset, first=4, most=8)
    change_settings(dataset, SHORT)
    return open_dataset(NAME, configuration, PLANS)


def set_features(dataset: SFRDataset, *, first: int, most: int) -> None:
    """Give nnU-Net's networks ``first`` features, twice as many in each further stage, and nowhere more than ``most``.

    Written to nnU-Net's plan on disk; who has the data set open opens it again.
    """
    file = dataset.paths.plans_file
    content = json.loads(file.read_text(encoding="utf-8"))
    for configuration in content["configurations"].values():
        if "architecture" in configuration:
            network = configuration["architecture"]["arch_kwargs"]
            network["features_per_stage"] = [min(first * 2**stage, most) for stage in range(network["n_stages"])]
    file.write_text(json.dumps(content, indent=4))


@contextmanager
def project_copy(root: Path, target: Path) -> Iterator[SFRDataset]:
    """A copy, in ``target``, of a project below ``root``, with nnU-Net's variables set to it.

    The copy keeps the times of change, so it is as up to date as the original.
    """
    shutil.copytree(root, target, dirs_exist_ok=True)
    with nnunet_folders(target):
        yield open_dataset(NAME, "3d_fullres", PLANS)


def build_trainer(dataset: SFRDataset, name: str, fold: Fold = "all") -> Any:
    """A trainer by name, ours or nnU-Net's own, built as nnUNetv2_train does, from the files as they are now."""
    plans = {**json.loads(dataset.paths.plans_file.read_text(encoding="utf-8")), "continue_training": False}
    dataset_json = json.loads((dataset.paths.preprocessed / "dataset.json").read_text(encoding="utf-8"))
    trainer_class: Any = nnUNetTrainer if name == "nnUNetTrainer" else find_trainer(name)
    return trainer_class(plans, dataset.paths.configuration, fold, dataset_json, torch.device("cpu"))


def change_settings(dataset: SFRDataset, changes: dict[str, dict[str, Any]]) -> None:
    """Edit the SFR plan on disk, as a user would."""
    file = dataset.paths.sfr_plans_file
    content = json.loads(file.read_text(encoding="utf-8"))
    for section, values in changes.items():
        content["configurations"][dataset.paths.configuration][section].update(values)
    file.write_text(json.dumps(content))


def with_two_channels(dataset: SFRDataset) -> SFRDataset:
    """The data set as if its images had two channels; they stay as they are, for tests that do not read them."""
    file = dataset.paths.dataset_json
    content = {**dataset.dataset_json, "channel_names": {"0": "T1", "1": "T2"}}
    file.write_text(json.dumps(content))
    return open_dataset(dataset.paths.dataset_name, dataset.paths.configuration, PLANS)


def fill_store(dataset: SFRDataset, fold: Fold = "all") -> PseudoLabelStore:
    """Pseudo-labels by a threshold on the first channel, which finds the bright blob of the tiny volumes."""
    store = PseudoLabelStore.create(
        dataset.paths.pseudo_labels(fold), grid=dataset.grid, made_by=Provenance(source="threshold")
    )
    cases = UnlabelledDataset(dataset.paths.unlabelled)
    for identifier in cases.identifiers:
        image, _, _, _ = cases.load_case(identifier)
        labels = (image[:][:1] > 1.0).astype(np.int8)
        assert 0 < labels.mean() < 0.5, "the threshold must find a blob"
        store.write(
            identifier,
            labels,
            {"mean_max_probability": 1.0},
            label_manager=dataset.label_manager,
            patch_size=dataset.configuration_manager.patch_size,
        )
    return store
