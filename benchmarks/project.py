"""A planned nnU-Net project in a temporary folder, just complete enough for a trainer's ``initialize()``.

The plan is written here and not made by a planner, since a planner would choose patch size and network itself. It has
nnU-Net's topology for that patch (pooling and kernels by nnU-Net's own rule) and nnU-Net's block counts. There are no
images: the benchmarks hand random patches straight to the trainers.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunetv2.experiment_planning.experiment_planners.network_topology import get_pool_and_conv_props
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_sfr.atomic import write_json
from nnunet_sfr.canvas import UNSCALED
from nnunet_sfr.dataset import SFRDataset, open_dataset
from nnunet_sfr.errors import UserError
from nnunet_sfr.paths import SFRPaths
from nnunet_sfr.planning.mosaic import choose_stitching
from nnunet_sfr.plans import SFRConfiguration, derived_from, save_configuration
from nnunet_sfr.sam_models import find_model

DATASET, PLANS, CONFIGURATION = "Dataset001_Benchmark", "nnUNetPlans", "3d_fullres"
SPACING = (1.0, 1.0, 1.0)
SMALLEST_FEATURE_MAP = 4
"""nnU-Net's UNet_featuremap_min_edge_length."""


@dataclass(frozen=True)
class Workload:
    """What one training step works on.

    Args:
        patch_size: in voxels.
        features: channels of each stage of the encoder.
        batch_size: n, the labelled patches of a step (SFR adds n unlabelled ones).
        classes: label values, background included.
    """

    patch_size: tuple[int, int, int]
    features: tuple[int, ...]
    batch_size: int
    classes: int


@contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables while the context lasts, for this process and those that it starts."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def temporary_project(workload: Workload) -> Iterator[None]:
    """Write the project and point nnU-Net's variables at it while the context lasts.

    Raises:
        UserError: there are too few features, or more than the patch can be pooled for.
    """
    plans = make_plans(workload)
    with tempfile.TemporaryDirectory(prefix="nnunet_sfr_benchmark_") as root:
        folders = {name: str(Path(root, name)) for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")}
        with environment({**folders, "nnUNet_compile": "f"}):
            _write_project(plans, workload)
            yield


def open_project() -> SFRDataset:
    """The project that nnU-Net's variables point at."""
    return open_dataset(DATASET, CONFIGURATION, PLANS)


def make_plans(workload: Workload) -> dict[str, Any]:
    """An nnU-Net plan with one configuration.

    Raises:
        UserError: there are too few features, or more than the patch can be pooled for.
    """
    configuration = {
        "data_identifier": f"{PLANS}_{CONFIGURATION}",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": workload.batch_size,
        "patch_size": list(workload.patch_size),
        "spacing": list(SPACING),
        "normalization_schemes": ["ZScoreNormalization"],
        "use_mask_for_norm": [False],
        "batch_dice": True,
        "architecture": _architecture(workload),
    }
    return {
        "dataset_name": DATASET,
        "plans_name": PLANS,
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "label_manager": "LabelManager",
        "configurations": {CONFIGURATION: configuration},
    }


def _architecture(workload: Workload) -> dict[str, Any]:
    stages = len(workload.features)
    if stages < 3:
        # it leaves the lowest resolution out, which with two stages is the only one: every weight would be 0 / 0
        raise UserError(f"--features: {stages} stages, but nnU-Net's deep supervision needs 3")
    _, strides, kernels, padded, _ = get_pool_and_conv_props(
        SPACING, workload.patch_size, SMALLEST_FEATURE_MAP, max_numpool=stages - 1
    )
    patch = " ".join(map(str, workload.patch_size))
    if len(strides) != stages:
        raise UserError(f"--features: {stages} stages do not fit --patch {patch}, which has {len(strides)} at most")
    if tuple(padded) != workload.patch_size:
        divisible = " ".join(str(int(length)) for length in padded)
        raise UserError(f"--patch {patch}: cannot be halved often enough for {stages} stages; use {divisible}")
    return {
        "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
        "arch_kwargs": {
            "n_stages": stages,
            "features_per_stage": list(workload.features),
            "conv_op": "torch.nn.modules.conv.Conv3d",
            "kernel_sizes": kernels,
            "strides": strides,
            "n_conv_per_stage": [2] * stages,
            "n_conv_per_stage_decoder": [2] * (stages - 1),
            "conv_bias": True,
            "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
            "norm_op_kwargs": {"eps": 1e-5, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }


def _write_project(plans: dict[str, Any], workload: Workload) -> None:
    manager = PlansManager(plans)
    configuration = manager.get_configuration(CONFIGURATION)
    paths = SFRPaths(DATASET, PLANS, CONFIGURATION, configuration.data_identifier)
    write_json(plans, paths.plans_file)
    labels = {"background": 0, **{f"class_{value}": value for value in range(1, workload.classes)}}
    dataset_json = {"channel_names": {"0": "MRI"}, "labels": labels, "numTraining": 1, "file_ending": ".nii.gz"}
    write_json(dataset_json, paths.preprocessed / "dataset.json")
    save_configuration(
        paths.sfr_plans_file,
        dataset_name=DATASET,
        plans_name=PLANS,
        configuration=CONFIGURATION,
        settings=SFRConfiguration(
            stitching=choose_stitching(find_model("vit_tiny"), workload.patch_size, workload.patch_size, UNSCALED),
            derived_from=derived_from(plans, configuration.configuration),
        ),
    )
    # nnU-Net tells its data format from the names in this folder; nothing is read from the file
    paths.labelled.mkdir()
    (paths.labelled / "case.b2nd").touch()
