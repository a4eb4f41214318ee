"""Converted data sets are planned, preprocessed and trained on: one epoch of a few steps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

from nnunet_sfr.conversion import PUBLIC_DATASETS, abdomenct_1k
from nnunet_sfr.conversion.brats import CHANNELS
from nnunet_sfr.conversion.lists import read_lists
from nnunet_sfr.conversion.mact import fold_lists
from nnunet_sfr.conversion.raw_dataset import convert_source, dataset_folder
from nnunet_sfr.conversion.source_dataset import ConversionRequest
from nnunet_sfr.dataset import open_dataset
from nnunet_sfr.planning import fingerprint
from nnunet_sfr.planning.pipeline import plan_and_preprocess
from tests.conversion import trees
from tests.tiny_project import PLANS, SHORT, build_trainer, change_settings, nnunet_folders

SHAPE = trees.SHAPE
MACT_CASES = [int(case) for case in (*fold_lists(0).training[:3], fold_lists(0).test[0])]
KINDS: dict[str, tuple[str, Callable[[Path], Path], dict[str, Any], int, int]] = {
    # what is converted, options, channels, classes or regions
    "four channels and regions": (
        "BraTS",
        lambda root: trees.brats(root, trees.few(read_lists("BraTS"), training=3, test=1), shape=SHAPE),
        {"channels": tuple(CHANNELS), "regions": True},
        4,
        3,
    ),
    "one channel, two labels": (
        "BraTS",
        lambda root: trees.brats(root, trees.few(read_lists("BraTS"), training=3, test=1), shape=SHAPE),
        {},
        1,
        2,
    ),
    "oblique": (
        "BTCV",
        lambda root: trees.btcv(root, trees.few(read_lists("BTCV"), training=3, test=1), shape=(28, 22, 20)),
        {},
        1,
        14,
    ),
    "cropped": ("MACT", lambda root: trees.mact(root, MACT_CASES, shape=(28, 26, 24)), {}, 1, 9),
    "four organs": ("AbdomenCT-1K", lambda root: trees.abdomenct_1k(root, range(1, 13), shape=SHAPE), {}, 1, 5),
    "thick slices": ("ACDC", lambda root: trees.acdc(root, (1, 2, 101), shape=(26, 24, 12)), {}, 1, 4),
}


@pytest.mark.parametrize("kind", KINDS, ids=lambda name: name.replace(" ", "_"))
def test_a_converted_data_set_is_planned_and_trained(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, make, options, channels, outputs = KINDS[kind]
    monkeypatch.setattr(abdomenct_1k, "CASES", 12)
    with nnunet_folders(tmp_path):
        source = PUBLIC_DATASETS[name].open(
            ConversionRequest(make(tmp_path / "source"), 1, allow_missing=True, options=options)
        )
        folder = dataset_folder(None, name)
        convert_source(source, folder, bar=False)
        with mock.patch.object(fingerprint, "FOREGROUND_SAMPLES", 6000):
            plan_and_preprocess(
                folder.name, planner="ExperimentPlannerCPU", sam="vit_tiny", fingerprint_processes=1, processes=1
            )
        dataset = open_dataset(folder.name, "3d_fullres", PLANS)
        change_settings(dataset, SHORT)
        trainer = build_trainer(open_dataset(folder.name, "3d_fullres", PLANS), "nnUNetTrainer_MT_1epochs")
        trainer.run_training()
    assert dataset.num_input_channels == channels
    assert trainer.label_manager.num_segmentation_heads == outputs
    assert np.isfinite(trainer.logger.get_value("supervised_loss", step=-1))
