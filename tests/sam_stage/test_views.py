"""Embedded views: what they are, made once, continued after an interruption, made again when something changed."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class

from nnunet_sfr.dataset import SFRDataset, open_dataset
from nnunet_sfr.errors import UserError
from nnunet_sfr.sam_stage.embedding import (
    EmbeddedViews,
    ViewMaker,
    covering_patches,
    expected_draws,
    foreground_share,
    number_of_views,
    spread_patches,
    view_seed,
)
from nnunet_sfr.sam_stage.intensities import CasesWithIntensities, intensities_of, intensities_of_case
from nnunet_sfr.sam_stage.labelled_canvas import IGNORE_INDEX
from nnunet_sfr.sam_stage.model import build_stitched_sam, for_inference
from nnunet_sfr.sam_stage.patches import OVERSAMPLE_FOREGROUND
from nnunet_sfr.sam_stage.views import ViewStore
from tests.tiny_project import change_settings

CPU = torch.device("cpu")


def make_maker(dataset: SFRDataset, *, draws: int = 1000, weights: str = "a") -> ViewMaker:
    torch.manual_seed(0)
    model = build_stitched_sam(dataset)
    folder = str(dataset.paths.labelled)
    cases = CasesWithIntensities(infer_dataset_class(folder)(folder), intensities_of(dataset))
    encoder = for_inference(model).sam.encoder_of_images()
    settings = dataset.settings.fine_tuning
    return ViewMaker(
        dataset,
        cases,
        settings,
        encoder,
        model.geometry,
        CPU,
        weights=weights,
        folder_of={case: f"labelled/{case}" for case in cases.identifiers},
        sampling_probabilities=None,
        draws=draws,
    )


def contents(dataset: SFRDataset) -> dict[str, bytes]:
    folder = dataset.paths.sam_views
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*.safetensors"))}


def reopened(project: SFRDataset) -> SFRDataset:
    return open_dataset(project.paths.dataset_name, project.paths.configuration, project.paths.plans_name)


@pytest.mark.parametrize("shape", [(20, 24, 22), (31, 40, 37), (5, 60, 9), (41, 24, 100)])
def test_covering_patches_cover_every_voxel(shape: tuple[int, int, int]) -> None:
    patch = (20, 24, 22)
    covered = np.zeros(shape, dtype=bool)
    corners = covering_patches(shape, patch)
    assert len(corners) == np.prod([-(-length // size) for length, size in zip(shape, patch, strict=True)])
    for corner in corners:
        covered[tuple(slice(max(0, start), start + size) for start, size in zip(corner, patch, strict=True))] = True
    assert covered.all()


def test_a_volume_that_is_hardly_larger_than_a_patch_has_few_views() -> None:
    """Eight patches cover it, two have as many voxels; a volume of 64 patches keeps them all."""
    assert len(covering_patches((22, 26, 24), (20, 24, 22))) == 8
    assert spread_patches((22, 26, 24), (20, 24, 22)) == [(0, 0, 0), (2, 0, 0)]
    assert spread_patches((80, 96, 88), (20, 24, 22)) == covering_patches((80, 96, 88), (20, 24, 22))
    assert spread_patches((10, 24, 19), (20, 24, 22)) == [(-5, 0, -1)]


def test_a_smaller_volume_lies_in_the_middle_of_its_patch() -> None:
    assert covering_patches((10, 24, 19), (20, 24, 22)) == [(-5, 0, -1)]


def test_the_first_view_is_the_patch_itself(pretrained_project: SFRDataset) -> None:
    maker = make_maker(pretrained_project)
    counts = maker.make()
    stored = next(iter(counts))
    case = stored.removeprefix("labelled/")
    assert counts[stored] == 3 * len(maker._patches(case))
    found, target = maker.store.read(stored, 0)
    folder = str(pretrained_project.paths.labelled)
    image, labels, _, _ = infer_dataset_class(folder)(folder).load_case(case)
    model = build_stitched_sam(pretrained_project)
    [corner] = covering_patches(image.shape[1:], model.geometry.patch_size)[:1]
    inside = tuple(
        slice(max(0, start), min(start + size, length))
        for start, size, length in zip(corner, model.geometry.patch_size, image.shape[1:], strict=True)
    )
    voxels = intensities_of_case(intensities_of(pretrained_project), image[:], labels)
    pads = [
        (max(0, -start), max(0, start + size - length))
        for start, size, length in zip(corner, model.geometry.patch_size, image.shape[1:], strict=True)
    ]
    patch = torch.from_numpy(np.pad(voxels[(slice(None), *inside)], [(0, 0), *pads]))[None]
    expected = model.sam.encode(model.geometry.stitch(patch))[0].detach()
    assert found.shape == model.sam.embedding_shape
    torch.testing.assert_close(found, expected, atol=0.05 * float(expected.std()), rtol=0.02)
    truth = torch.from_numpy(np.pad(labels[(slice(None), *inside)], [(0, 0), *pads], constant_values=-1))[None]
    assert torch.equal(target, model.geometry.stitch_labels(truth.long(), fill=IGNORE_INDEX)[0])
    other, _ = maker.store.read(stored, counts[stored] - 1)
    assert not torch.allclose(other, found, atol=0.05)


def test_views_are_made_once_and_continued(pretrained_project: SFRDataset) -> None:
    """Interrupted at the fourth view, and made by two processes in turn: the same files as in one go."""
    make_maker(pretrained_project).make()
    at_once = contents(pretrained_project)
    assert len(at_once) == 9
    with mock.patch.object(ViewStore, "write", side_effect=AssertionError):
        make_maker(pretrained_project).make()
    for name in list(at_once)[3:]:
        (pretrained_project.paths.sam_views / name).unlink()
    damaged = pretrained_project.paths.sam_views / next(iter(at_once))
    damaged.write_bytes(damaged.read_bytes()[:40])
    torch.manual_seed(99)
    for part in (1, 0):
        maker = make_maker(pretrained_project)
        maker.prepare()
        maker.make(part=part, parts=2)
    assert contents(pretrained_project) == at_once


def test_making_views_leaves_the_random_generators_alone(pretrained_project: SFRDataset) -> None:
    maker = make_maker(pretrained_project)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    maker.make()
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"fine_tuning": {"seed": 7}}, "fine_tuning.seed"),
        ({"fine_tuning": {"shift_fraction": 0.0}}, "fine_tuning.shift_fraction"),
        ({"stitching": {"patch_size": [21, 24, 22]}}, "stitching"),
    ],
)
def test_other_settings_make_them_again(
    pretrained_project: SFRDataset,
    changes: dict[str, dict[str, object]],
    words: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    maker = make_maker(pretrained_project)
    maker.prepare()
    maker.make()
    before = contents(pretrained_project)
    change_settings(pretrained_project, changes)
    again = make_maker(reopened(pretrained_project))
    again.prepare()
    assert contents(pretrained_project) == {}
    assert f"embedded again, because of another {words}" in capsys.readouterr().out
    again.make()
    assert contents(pretrained_project).keys() == before.keys()


def test_other_weights_or_labels_make_them_again(pretrained_project: SFRDataset) -> None:
    maker = make_maker(pretrained_project)
    maker.prepare()
    maker.make()
    unchanged = make_maker(pretrained_project)
    unchanged.prepare()
    assert len(contents(pretrained_project)) == 9
    other_weights = make_maker(pretrained_project, weights="b")
    other_weights.prepare()
    assert not contents(pretrained_project)


def test_more_views_keep_those_that_are_there(pretrained_project: SFRDataset) -> None:
    make_maker(pretrained_project).make()
    before = contents(pretrained_project)
    change_settings(pretrained_project, {"fine_tuning": {"views": 5}})
    counts = make_maker(reopened(pretrained_project)).make()
    after = contents(pretrained_project)
    assert set(counts.values()) == {5}
    assert before.items() <= after.items()


def test_no_case_gets_more_views_than_it_is_drawn(pretrained_project: SFRDataset) -> None:
    assert set(make_maker(pretrained_project, draws=3).make().values()) == {2}
    assert number_of_views(300, 32, 427.4) == 300 + 428
    assert number_of_views(3, 32, 1000) == 3 * 32
    assert expected_draws(["a", "b"], [0.25, 0.75], 8) == {"a": 2, "b": 6}
    assert expected_draws(["a", "b"], None, 8) == {"a": 4, "b": 4}


def test_cases_that_fit_into_a_patch_are_shown_whole() -> None:
    assert foreground_share(1) == 0
    assert foreground_share(2) == OVERSAMPLE_FOREGROUND


def test_only_views_that_were_made_otherwise_are_made_again(pretrained_project: SFRDataset) -> None:
    """The recipe of a case that fits into a patch stays as it was; of a larger one it says how views are drawn."""
    case = make_maker(pretrained_project)._cases.identifiers[0]
    before = make_maker(pretrained_project)._recipe(case)
    assert not [key for key in before if " " in key]
    change_settings(pretrained_project, {"stitching": {"patch_size": [6, 24, 22]}})
    now = make_maker(reopened(pretrained_project))._recipe(case)
    assert now.keys() - before.keys() == {"share of views on foreground"}


def test_seeds_differ_between_views_cases_and_axes() -> None:
    seeds = {
        view_seed(seed, case, axis, index)
        for seed in (1, 2)
        for case in ("a", "b")
        for axis in (0, 1)
        for index in range(50)
    }
    assert len(seeds) == 400
    assert max(seeds) < 2**32


def test_processes_share_every_batch(tmp_path: Path) -> None:
    """Two processes with the same generators read the two halves of the batch that one would read."""
    store = ViewStore(tmp_path)
    for case in range(2):
        for index in range(3):
            store.write(f"case_{case}", index, torch.full((1, 2, 2), case * 10.0 + index), torch.full((4, 4), case))
    counts = {"case_0": 3, "case_1": 3}

    def draw(part: int, parts: int) -> tuple[torch.Tensor, torch.Tensor]:
        torch.manual_seed(3)
        return next(EmbeddedViews(store, counts, [0.2, 0.8], batch_size=8, part=part, parts=parts))

    embeddings, targets = draw(0, 1)
    assert len(embeddings) == 8
    assert torch.equal(embeddings[:, 0, 0, 0] // 10, targets[:, 0, 0].float())
    for part in range(2):
        share, share_targets = draw(part, 2)
        assert torch.equal(share, embeddings[part::2])
        assert torch.equal(share_targets, targets[part::2])


def test_cases_are_drawn_by_their_chances(tmp_path: Path) -> None:
    store = ViewStore(tmp_path)
    for case in ("a", "b"):
        store.write(case, 0, torch.zeros(1, 1, 1), torch.full((1, 1), int(case == "b")))
    torch.manual_seed(0)
    _, targets = next(EmbeddedViews(store, {"a": 1, "b": 1}, [0.1, 0.9], batch_size=500))
    assert 0.85 < float(targets.float().mean()) < 0.95


def test_a_damaged_view_is_one_line(tmp_path: Path) -> None:
    store = ViewStore(tmp_path)
    store.write("a", 0, torch.zeros(1, 1, 1), torch.zeros(1, 1))
    [file] = tmp_path.rglob("*.safetensors")
    file.write_bytes(b"x")
    with pytest.raises(UserError, match=r"cannot be read .* run sfr_finetune again"):
        store.read("a", 0)
