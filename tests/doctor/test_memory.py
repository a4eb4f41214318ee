"""Expected memory: against the peaks of real steps, against nnU-Net's own numbers, and against what there is."""

from __future__ import annotations

import re
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner
from nnunetv2.experiment_planning.experiment_planners.residual_unets.residual_encoder_unet_planners import (
    ResEncUNetPlanner,
)
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from torch import nn

from nnunet_sfr.confidence import confidence_record
from nnunet_sfr.dataset import SFRDataset, open_dataset
from nnunet_sfr.devices import autocast
from nnunet_sfr.doctor import memory
from nnunet_sfr.doctor.findings import Finding
from nnunet_sfr.doctor.memory import (
    check_fine_tuning,
    check_pseudo_labelling,
    check_retraining,
    nnunets_own_estimate,
)
from nnunet_sfr.doctor.plan import volumes
from nnunet_sfr.label_decision import LARGEST_PROBABILITY
from nnunet_sfr.labelling.case_labels import LoadedCase, _combine, labels_from_probabilities
from nnunet_sfr.nnunet_json import read_fingerprint
from nnunet_sfr.sam_models import MODELS
from nnunet_sfr.sam_stage.adaptation import adapt, encoder_is_frozen
from nnunet_sfr.sam_stage.adaptations import ADAPTATIONS
from nnunet_sfr.sam_stage.examples import CanvasLogits
from nnunet_sfr.sam_stage.intensities import AsPreprocessed
from nnunet_sfr.sam_stage.labelled_canvas import IGNORE_INDEX
from nnunet_sfr.sam_stage.layers import frozen_encoder
from nnunet_sfr.sam_stage.losses import stitched_segmentation_loss
from nnunet_sfr.sam_stage.model import build_stitched_sam, for_inference
from nnunet_sfr.sam_stage.prediction import VolumePredictor
from nnunet_sfr.sam_stage.pseudo_labelling import _Predictors, _SAMLabeller
from nnunet_sfr.sam_stage.sam import StitchedSAM, build_sam
from nnunet_sfr.sam_stage.stitching import StitchGeometry
from nnunet_sfr.settings import PseudoLabelSettings
from nnunet_sfr.trainers.methods import METHODS
from tests.doctor.levels import levels
from tests.doctor.measured import autocast_on_cuda, counts_on_cuda, peak_of
from tests.tiny_dataset import NAME
from tests.tiny_project import PLANS, build_trainer, change_settings, set_features

CPU = torch.device("cpu")
MIB = 2**20
README = Path(__file__).resolve().parents[2] / "benchmarks" / "README.md"


def bytes_in(finding: Finding) -> float:
    """The first number of the line."""
    match = re.match(r"about ([0-9.]+) GiB", finding.text)
    assert match is not None
    return float(match[1]) * 2**30


@pytest.fixture
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the lines have more digits than people read."""
    monkeypatch.setattr(memory, "gib", lambda size: f"{size / 2**30:.9f} GiB")


@pytest.fixture
def small_vit_b(monkeypatch: pytest.MonkeyPatch) -> None:
    """A vit_b of vit_tiny's sizes."""
    tiny = MODELS["vit_tiny"]
    small = replace(MODELS["vit_b"], encoder=tiny.encoder, decoder=tiny.decoder, stride=tiny.stride)
    monkeypatch.setitem(MODELS, "vit_b", small)


def with_sam(project: SFRDataset, model: str, adaptation: str, **fine_tuning: object) -> SFRDataset:
    sam = {"model": model, "adaptation": adaptation, "adaptation_settings": {}}
    change_settings(project, {"sam": sam, "fine_tuning": fine_tuning})
    return open_dataset(NAME, "3d_fullres", PLANS)


def without_weights(dataset: SFRDataset) -> StitchedSAM:
    """The data set's SAM, adapted, with random weights in the place of published ones."""
    settings, stitching = dataset.settings.sam, dataset.settings.stitching
    sam = build_sam(settings.model, input_size=stitching.canvas_size, in_channels=1, num_classes=2)
    return StitchedSAM(adapt(sam, settings), StitchGeometry(stitching.patch_size, stitching.canvas_size))


def fine_tune_two_steps(dataset: SFRDataset) -> None:
    """Two steps, so that the optimiser has its states, on patches or on embeddings as fine-tuning does."""
    model = without_weights(dataset).train()
    settings = dataset.settings.fine_tuning
    embedded = encoder_is_frozen(model.sam)
    shape = model.sam.embedding_shape if embedded else (1, *[dataset.settings.stitching.canvas_size] * 2)
    compute = CanvasLogits(model, embedded=embedded)
    optimizer = torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad])
    for _ in range(2):
        optimizer.zero_grad(set_to_none=True)
        with autocast(CPU):
            logits = compute(torch.zeros(settings.batch_size, *shape))
        target = torch.zeros((settings.batch_size, *logits.shape[2:]), dtype=torch.int64)
        loss, _ = stitched_segmentation_loss(
            logits, target, ignore_index=IGNORE_INDEX, cross_entropy_weight=0.5, dice_weight=0.5
        )
        loss.backward()
        optimizer.step()


@pytest.mark.usefixtures("exact")
def test_a_step_of_fine_tuning_against_a_real_one(project: SFRDataset) -> None:
    (finding,) = check_fine_tuning(project, CPU)
    assert finding.level.value == "ok"
    assert 1.0 <= bytes_in(finding) / peak_of(lambda: fine_tune_two_steps(project)) <= 1.2


@pytest.mark.usefixtures("exact", "small_vit_b")
def test_a_step_on_embeddings_against_a_real_one(project: SFRDataset) -> None:
    """Where the encoder is frozen, no activation of it is kept: a step needs a fraction of one on patches."""
    dataset = with_sam(project, "vit_b", "decoder", batch_size=4)
    (finding,) = check_fine_tuning(dataset, CPU)
    assert 1.0 <= bytes_in(finding) / peak_of(lambda: fine_tune_two_steps(dataset)) <= 1.2
    (on_patches,) = check_fine_tuning(with_sam(project, "vit_b", "lora", batch_size=4), CPU)
    assert bytes_in(finding) < 0.7 * bytes_in(on_patches)


@pytest.mark.usefixtures("exact")
def test_embedding_counts_where_it_needs_more_than_a_step(project: SFRDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """LiteMedSAM's encoder with a small decoder, at a batch of 1."""
    small = replace(MODELS["lite_medsam"], decoder=MODELS["vit_tiny"].decoder)
    monkeypatch.setitem(MODELS, "lite_medsam", small)
    dataset = with_sam(project, "lite_medsam", "decoder", batch_size=1)

    def real() -> None:
        model = without_weights(dataset)
        encoder = for_inference(model).sam.encoder_of_images()
        with torch.inference_mode():
            encoder(model.geometry.stitch(torch.zeros(1, 1, *dataset.settings.stitching.patch_size)))

    (finding,) = check_fine_tuning(dataset, CPU)
    embedding = peak_of(real)
    assert embedding > 1.2 * peak_of(lambda: fine_tune_two_steps(dataset))
    assert bytes_in(finding) == pytest.approx(embedding, rel=0.03)


@pytest.mark.usefixtures("small_vit_b")
@pytest.mark.parametrize("model", ["vit_b", "lite_medsam"])
@pytest.mark.parametrize("adaptation", list(ADAPTATIONS))
def test_every_adaptation_is_estimated(model: str, adaptation: str, project: SFRDataset) -> None:
    dataset = with_sam(project, model, adaptation)
    (tuning,), (labelling,) = check_fine_tuning(dataset, CPU), check_pseudo_labelling(dataset, CPU)
    assert (tuning.level.value, labelling.level.value) == ("ok", "ok")


@pytest.mark.usefixtures("exact", "small_vit_b")
def test_activation_checkpointing_is_counted(project: SFRDataset) -> None:
    (plain,) = check_fine_tuning(with_sam(project, "vit_b", "lora"), CPU)
    (saving,) = check_fine_tuning(with_sam(project, "vit_b", "lora", activation_checkpointing=True), CPU)
    assert bytes_in(saving) < 0.8 * bytes_in(plain)
    (frozen,) = check_fine_tuning(with_sam(project, "vit_b", "decoder", activation_checkpointing=True), CPU)
    assert frozen == check_fine_tuning(with_sam(project, "vit_b", "decoder", activation_checkpointing=False), CPU)[0]


@pytest.mark.usefixtures("exact")
def test_a_step_of_nnunet_against_a_real_one(project: SFRDataset) -> None:
    set_features(project, first=16, most=128)  # as they are planned: of smaller ones the loss takes most of the memory
    project = open_dataset(NAME, "3d_fullres", PLANS)

    def real() -> None:
        trainer = build_trainer(project, "nnUNetTrainer")
        trainer.initialize()
        patch = project.configuration_manager.patch_size
        targets = [
            torch.zeros(trainer.batch_size, 1, *(round(n * f) for n, f in zip(patch, scale, strict=True)))
            for scale in trainer._get_deep_supervision_scales()
        ]
        for _ in range(2):
            trainer.train_step({"data": torch.randn(trainer.batch_size, 1, *patch), "target": targets})

    (finding,) = check_retraining(project, CPU)
    assert 0.95 <= bytes_in(finding) / peak_of(real) <= 1.2


@pytest.mark.usefixtures("exact")
def test_prediction_against_a_real_one(project: SFRDataset) -> None:
    """SAM's part; the probabilities of the largest case, of 20 x 24 x 22 voxels, come on top on a CPU."""

    def real() -> None:
        trained = build_stitched_sam(project)
        model = for_inference(trained).eval()
        with torch.inference_mode():
            with autocast(CPU):
                logits = model(torch.zeros(1, 1, *project.settings.stitching.patch_size))
            torch.softmax(logits.float(), dim=1)

    (finding,) = check_pseudo_labelling(project, CPU)
    labelling = 20 * 24 * 22 * memory.labelling_bytes(2)
    shapes = volumes(project, read_fingerprint(project.paths.fingerprint_file))
    assert max(np.prod(shape) for shape in shapes) == 20 * 24 * 22
    assert bytes_in(finding) - labelling == pytest.approx(peak_of(real), rel=0.02)


@pytest.mark.parametrize("classes", [2, 5])
def test_main_memory_of_labelling_a_case(classes: int) -> None:
    class Copies(nn.Module):
        def forward(self, patches: torch.Tensor) -> torch.Tensor:
            return patches.repeat(1, classes, 1, 1, 1)

    shape = (48, 64, 64)
    predictor = VolumePredictor(Copies(), (16, 16, 16), PseudoLabelSettings(), CPU)
    image = torch.randn(1, *shape).numpy()
    case = LoadedCase("case", image, image, {})

    predictors = _Predictors(predictor.probabilities, predictor.probabilities, (1, 2, 3))
    labeller = _SAMLabeller(AsPreprocessed(), [predictors], average=True, decision=LARGEST_PROBABILITY)
    manager = LabelManager({"background": 0, **{str(value): value for value in range(1, classes)}}, None)

    def label() -> None:
        predictions = labeller.case_probabilities(case, mirrored=True)
        combined = _combine("case", predictions, manager, labeller)
        labels = labels_from_probabilities(combined.probabilities, manager, labeller)
        confidence_record(combined.probabilities, labels, num_classes=classes, regions=False, mirrored=combined.single)

    assert peak_of(label) == pytest.approx(np.prod(shape) * memory.labelling_bytes(classes), rel=0.02)


def test_factors_of_the_trainers_are_those_that_were_measured() -> None:
    section = (
        README.read_text(encoding="utf-8")
        .partition("<!-- every_trainer:start -->")[2]
        .partition("<!-- every_trainer:end -->")[0]
    )
    rows = re.findall(r"^\| nnUNetTrainerSFR_(\w+) .*\|\s*([0-9.]+) \|$", section, flags=re.MULTILINE)
    measured = {name: float(ratio) for name, ratio in rows}
    assert measured.keys() == METHODS.keys()
    for name, method in METHODS.items():
        known = pytest.approx(measured[name], abs=0.05)
        assert method.relative_memory == known, "copy the new factors from benchmarks/README.md"


def test_every_trainer_is_estimated(project: SFRDataset) -> None:
    (finding,) = check_retraining(project, CPU)
    assert re.findall(r"(\w+) [0-9.]+ GiB", finding.text.partition("itself, ")[2]) == list(METHODS)


@pytest.mark.parametrize(
    ("planner_class", "network"),
    [(ExperimentPlanner, "PlainConvUNet"), (ResEncUNetPlanner, "ResidualEncoderUNet")],
)
def test_reference_numbers_are_those_of_nnunets_planners(planner_class: Any, network: str, project: SFRDataset) -> None:
    planner = planner_class(NAME)
    references = (planner.UNet_reference_val_2d, planner.UNet_reference_val_3d)
    assert references == memory.NNUNET_REFERENCE_VOXELS[network]
    batches = (planner.UNet_reference_val_corresp_bs_2d, planner.UNet_reference_val_corresp_bs_3d)
    assert batches == memory.NNUNET_REFERENCE_BATCH
    assert planner.UNet_reference_val_corresp_GB == memory.NNUNET_REFERENCE_GB


def test_nnunets_own_estimate() -> None:
    """Half the reference's voxels at three times its batch: 1.5 times 8 GB."""

    class PlainConvUNet(nn.Module):
        def compute_conv_feature_map_size(self, patch_size: object) -> float:
            return 280e6

    assert nnunets_own_estimate(PlainConvUNet(), (64, 64, 64), 6) == 12 * 2**30


def test_on_a_gpu_nnunets_estimate_is_taken(project: SFRDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "device_memory", lambda device: 8 * 2**30)
    monkeypatch.setattr(memory, "nnunets_own_estimate", lambda *arguments: 3.9 * 2**30)
    (finding,) = check_retraining(project, torch.device("cuda"))
    assert finding.level.value == "ok"
    assert finding.text.startswith("about 3.90 GiB for nnU-Net itself, MT 4.25 GiB")
    monkeypatch.setattr(memory, "nnunets_own_estimate", lambda *arguments: 4.1 * 2**30)
    (finding,) = check_retraining(project, torch.device("cuda"))
    assert finding.level.value == "note", "MagicNet does not fit, the others do"
    assert finding.text.endswith("cuda has 8.00 GiB, too little for MagicNet")
    monkeypatch.setattr(memory, "nnunets_own_estimate", lambda *arguments: 8.1 * 2**30)
    assert levels(check_retraining(project, torch.device("cuda"))) == ["problem"]


@pytest.mark.usefixtures("exact", "small_vit_b")
def test_lora_needs_less_than_everything(project: SFRDataset) -> None:
    """No gradients and optimiser states for weights that stay; the encoder keeps about as much for its adapters."""
    (everything,) = check_fine_tuning(project, CPU)
    (adapters,) = check_fine_tuning(with_sam(project, "vit_b", "lora"), CPU)
    assert 5 * MIB < bytes_in(everything) - bytes_in(adapters) < 20 * MIB


@counts_on_cuda
@pytest.mark.usefixtures("exact")
def test_a_gpu_takes_mixed_precision_and_something_for_itself(
    project: SFRDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, name in ((memory, "autocast"), (frozen_encoder, "inference_autocast")):
        monkeypatch.setattr(module, name, lambda device: nullcontext() if device.type == "cpu" else autocast_on_cuda())
    monkeypatch.setattr(memory, "device_memory", lambda device: 2**40)
    (single,), (mixed,) = check_fine_tuning(project, CPU), check_fine_tuning(project, torch.device("cuda"))
    # attention keeps its softmax in single precision and again in half
    assert 0.7 < (bytes_in(mixed) - memory.CUDA_ITSELF) / bytes_in(single) < 1.3
    (finding,) = check_pseudo_labelling(project, torch.device("cuda"))
    assert finding.text.endswith("of main memory for the probabilities of the largest case")


def test_too_little_memory_for_sam(project: SFRDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "device_memory", lambda device: MIB)
    (tuning,), (labelling,) = check_fine_tuning(project, CPU), check_pseudo_labelling(project, CPU)
    assert (tuning.level.value, labelling.level.value) == ("problem", "problem")
    assert tuning.text.endswith("; cpu has 0.00 GiB")
    assert "fine_tuning.batch_size" in tuning.remedy


def test_too_little_main_memory_for_the_probabilities(project: SFRDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "main_memory", lambda: 1000)
    (finding,) = check_pseudo_labelling(project, CPU)
    assert finding.level.value == "problem"
    assert "probabilities of the largest case" in finding.text


@pytest.mark.usefixtures("exact")
def test_memory_grows_in_proportion_to_the_batch(project: SFRDataset) -> None:
    sizes = []
    for batch_size in (2, 4, 8):
        change_settings(project, {"fine_tuning": {"batch_size": batch_size}})
        (finding,) = check_fine_tuning(open_dataset(NAME, "3d_fullres", PLANS), CPU)
        sizes.append(bytes_in(finding))
    assert sizes[1] > 1.4 * sizes[0]
    assert sizes[2] - sizes[1] == pytest.approx(2 * (sizes[1] - sizes[0]), rel=0.03)


def test_a_network_of_others_that_cannot_be_counted(project: SFRDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    class Theirs(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images * float(images.sum())

    monkeypatch.setattr(nnUNetTrainer, "build_network_architecture", staticmethod(lambda *arguments: Theirs()))
    (finding,) = check_retraining(project, CPU)
    assert finding.level.value == "note"
    assert finding.text.startswith("cannot be estimated for Theirs")
