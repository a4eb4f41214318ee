"""Prototypes where the first layer is trained: two channels, whose embeddings change in every step."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from nnunet_sfr.data.datasets import LabelledDataset
from nnunet_sfr.dataset import SFRDataset
from nnunet_sfr.paths import FINAL_ADAPTER, FINE_TUNING_STATE
from nnunet_sfr.random_state import seed_everything
from nnunet_sfr.sam_stage.embedding import spread_patches
from nnunet_sfr.sam_stage.finetuning import fine_tune
from nnunet_sfr.sam_stage.intensities import CasesWithIntensities, intensities_of
from nnunet_sfr.sam_stage.labelled_canvas import IGNORE_INDEX, labelled_canvas
from nnunet_sfr.sam_stage.layers.prototypes import class_prototypes
from nnunet_sfr.sam_stage.model import build_stitched_sam, load_adapter
from tests.later_round import scripted_round
from tests.sam_stage.interrupted_steps import interrupted_at_step

CPU = torch.device("cpu")


def prompts_in(folder: Path) -> dict[str, Tensor]:
    return {name: value for name, value in load_file(folder / FINAL_ADAPTER).items() if name.startswith("prompts.")}


def expected_prototypes(dataset: SFRDataset) -> Tensor:
    """Of the training cases, each of which is one patch, with the SAM that fine-tuning starts from."""
    seed_everything(dataset.settings.fine_tuning.seed)
    model = build_stitched_sam(dataset)
    intensities = intensities_of(dataset)
    cases = CasesWithIntensities(LabelledDataset(str(dataset.paths.labelled)), intensities)
    embedded = []
    for case in cases.identifiers:
        image, labels, _, _ = cases.load_case(case)
        patch = dataset.settings.stitching.patch_size
        assert len(spread_patches(image.shape[1:], patch)) == 1
        missing = [size - length for size, length in zip(patch, image.shape[1:], strict=True)]
        pads = [pad for total in reversed(missing) for pad in (total // 2, total - total // 2)]
        data = torch.nn.functional.pad(torch.from_numpy(image[:]), pads)[None]
        target = torch.nn.functional.pad(torch.from_numpy(labels[:]), pads, value=-1)[None]
        canvas, truth = labelled_canvas(model.geometry, data, target, intensities=intensities, ignore_label=None)
        with torch.no_grad():
            embedded.append((model.sam.eval().encode(canvas)[0], truth[0]))
    return class_prototypes(embedded, dataset.num_classes, 1, ignore_index=IGNORE_INDEX)


def test_prototypes_are_collected_from_patches_before_the_first_step(two_channels: SFRDataset) -> None:
    prompts = prompts_in(fine_tune(two_channels, "all", CPU))
    assert bool(prompts["prompts.collected"])
    # the encoder's fast form rounds differently
    torch.testing.assert_close(prompts["prompts.prototypes"], expected_prototypes(two_channels), rtol=0, atol=0.02)
    model = build_stitched_sam(two_channels)
    load_adapter(model, two_channels, two_channels.paths.sam_stage("all") / FINAL_ADAPTER)
    assert model.sam.prompts is not None
    assert model.sam.prompts().shape == (1, 2, 32)
    assert not two_channels.paths.sam_views.exists(), "nothing is stored of an encoder that changes"


def test_a_later_round_keeps_them(two_channels: SFRDataset) -> None:
    first = prompts_in(fine_tune(two_channels, "all", CPU))
    scripted_round(two_channels)
    later = prompts_in(fine_tune(two_channels, "all", CPU, round_index=1))
    assert torch.equal(later["prompts.prototypes"], first["prompts.prototypes"])
    assert not torch.equal(later["prompts.projection.weight"], first["prompts.projection.weight"])


def test_a_run_that_began_without_prototypes_ends_without(two_channels: SFRDataset) -> None:
    """As earlier versions began it."""
    with interrupted_at_step(2):
        fine_tune(two_channels, "all", CPU)
    file = two_channels.paths.sam_stage("all") / FINE_TUNING_STATE
    state = torch.load(file, weights_only=True)
    for name in ("prompts.collected", "prompts.prototypes"):
        state["adapter"][name].zero_()
    torch.save(state, file)
    prompts = prompts_in(fine_tune(two_channels, "all", CPU))
    assert not prompts["prompts.collected"]
    assert not prompts["prompts.prototypes"].any()
