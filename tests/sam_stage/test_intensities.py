"""Intensities: what a model was trained with, the same for a patch, a whole case and after augmentation."""

from __future__ import annotations

import pickle
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from nnunetv2.preprocessing.normalization.default_normalization_schemes import CTNormalization
from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class

from nnunet_sfr.ct_windows import BONE, LUNG, MEDSAM_WINDOWS, SOFT_TISSUE, choose_window
from nnunet_sfr.dataset import SFRDataset
from nnunet_sfr.sam_models import MODELS
from nnunet_sfr.sam_stage.intensities import (
    INTENSITIES,
    AsPreprocessed,
    CasesWithIntensities,
    ZeroToOne,
    after_augmentation,
    ct_windows,
    intensities_of,
    intensities_of_case,
)
from nnunet_sfr.settings import SAMSettings, section_from_dict


class Faked:
    """As much of a data set as the windows are computed from."""

    def __init__(self, schemes: list[str], properties: dict[str, dict[str, float]], window: tuple[float, float]):
        self.configuration = {"normalization_schemes": schemes}
        self.foreground_intensities = properties
        self.settings = self
        self.sam = SAMSettings(window=window)


PROPERTIES = {"mean": 90.0, "std": 40.0, "percentile_00_5": -200.0, "percentile_99_5": 300.0, "median": 95.0}


def test_every_model_names_intensities_that_exist() -> None:
    assert {model.intensities for model in MODELS.values()} <= set(INTENSITIES)


def test_percentiles_of_each_channel_become_zero_and_one() -> None:
    rng = np.random.default_rng(0)
    image = rng.normal(size=(2, 10, 12, 14)).astype(np.float32) * np.array([1, 100], np.float32).reshape(2, 1, 1, 1)
    mapped = intensities_of_case(ZeroToOne((None, None)), image, None)
    for channel in range(2):
        low, high = np.percentile(image[channel], (0.5, 99.5))
        expected = np.clip((image[channel] - low) / (high - low), 0, 1)
        np.testing.assert_allclose(mapped[channel], expected, atol=1e-5)
        assert mapped[channel].min() == 0
        assert mapped[channel].max() == 1


def test_a_patch_has_the_limits_of_its_case() -> None:
    image = np.linspace(0, 1000, 6 * 7 * 8, dtype=np.float32).reshape(1, 6, 7, 8)
    mapped = ZeroToOne((None,)).for_case(image, None)
    part = (slice(None), slice(1, 3), slice(2, 5), slice(0, 8))
    np.testing.assert_array_equal(mapped(image[part], None), mapped(image, None)[part])
    assert mapped(image[part], None).max() < 0.6


@pytest.mark.filterwarnings("error")
def test_an_image_of_nearly_one_value_is_zero_and_one() -> None:
    image = np.zeros((1, 10, 10, 10), np.float32)
    image[0, 0, 0, :2] = 300  # both percentiles are 0
    assert np.array_equal(intensities_of_case(ZeroToOne((None,)), image, None), image / 300)


def test_an_image_of_one_value_is_finite() -> None:
    image = np.full((1, 3, 4, 5), 7, np.float32)
    assert np.isfinite(intensities_of_case(ZeroToOne((None,)), image, None)).all()


def test_ct_is_windowed_in_hounsfield_units() -> None:
    """From HU through nnU-Net's own normalisation: -160 HU becomes 0, 40 HU a half, 240 HU 1."""
    hounsfield = np.array([-200, -160, 40, 240, 300], np.float32).reshape(1, 1, 1, 5)
    preprocessed = CTNormalization(intensityproperties=PROPERTIES).run(hounsfield.copy())
    dataset: Any = Faked(["CTNormalization"], {"0": PROPERTIES}, MEDSAM_WINDOWS[SOFT_TISSUE])
    mapped = intensities_of_case(ZeroToOne(ct_windows(dataset)), preprocessed, None)
    np.testing.assert_allclose(mapped.ravel(), [0, 0, 0.5, 1, 1], atol=1e-6)


def test_only_ct_channels_have_a_window() -> None:
    dataset: Any = Faked(["ZScoreNormalization", "CTNormalization"], {"0": PROPERTIES, "1": PROPERTIES}, (-60.0, 140.0))
    assert ct_windows(dataset) == (None, ((-60 - 90) / 40, (140 - 90) / 40))


@pytest.mark.parametrize(("median", "window"), [(95.0, SOFT_TISSUE), (-700.0, LUNG), (500.0, BONE)])
def test_planning_takes_the_window_of_the_foreground(median: float, window: str) -> None:
    intensities = {"0": {**PROPERTIES, "median": median}}
    assert choose_window(intensities, ["CTNormalization"]) == window
    assert choose_window(intensities, ["ZScoreNormalization"]) == SOFT_TISSUE


def test_windows_are_medsams() -> None:
    """Width and level of its paper: 400 at 40, 1500 at -160; of its data format: 1800 at 400."""
    levels = {name: (high - low, (high + low) / 2) for name, (low, high) in MEDSAM_WINDOWS.items()}
    assert levels == {SOFT_TISSUE: (400, 40), LUNG: (1500, -160), BONE: (1800, 400)}


def test_a_window_must_rise() -> None:
    for window in ([240, -160], [0, 0], [0, float("inf")], [float("nan"), 1]):
        with pytest.raises(ValueError, match=r"window must (rise|be a finite number)"):
            section_from_dict(SAMSettings, {"window": window})


def test_the_loader_reads_mapped_parts(project: SFRDataset) -> None:
    folder = str(project.paths.labelled)
    cases = infer_dataset_class(folder)(folder)
    intensities = ZeroToOne((None,))
    mapped = CasesWithIntensities(cases, intensities)
    identifier = cases.identifiers[0]
    image, labels, _, _ = cases.load_case(identifier)
    ours, our_labels, _, _ = mapped.load_case(identifier)
    assert ours.shape == image.shape
    np.testing.assert_array_equal(our_labels[:], labels[:])
    expected = intensities_of_case(intensities, image[:], labels)
    np.testing.assert_allclose(ours[:], 4 * expected)
    part = (slice(None), slice(2, 9), slice(1, 8), slice(3, 5))
    back = after_augmentation(torch.from_numpy(ours[part]), intensities)
    np.testing.assert_allclose(back.numpy(), expected[part], atol=1e-6)


class Masked:
    """A case with values around 5 inside its mask, and nnU-Net's 0 outside; its label is 1 in one corner."""

    identifiers = ("case",)

    def load_case(self, identifier: str) -> tuple[Any, Any, None, dict[str, Any]]:
        labels = np.full((1, 8, 9, 10), -1, np.int8)
        labels[0, 2:7, 1:8, 2:9] = 0
        labels[0, 2, 1, 2] = 1
        image = np.where(labels >= 0, np.random.default_rng(0).normal(5, 1, labels.shape), 0).astype(np.float32)
        return np.concatenate([image, image]), labels, None, {}


def test_outside_the_mask_is_black_in_every_part() -> None:
    image, labels, _, _ = Masked().load_case("case")
    inside = labels[0] >= 0
    masked = ZeroToOne((None, None), masked=(1,))
    whole = intensities_of_case(masked, image, labels)
    low, high = np.percentile(image[1][inside], (0.5, 99.5))
    np.testing.assert_allclose(whole[1][inside], np.clip((image[1][inside] - low) / (high - low), 0, 1), atol=1e-6)
    assert (whole[1][~inside] == 0).all()
    np.testing.assert_array_equal(whole[0], intensities_of_case(ZeroToOne((None,)), image[:1], None)[0])

    parts, _, _, _ = CasesWithIntensities(Masked(), masked).load_case("case")  # type: ignore[arg-type]
    part = (slice(None), slice(1, 4), slice(0, 5), slice(3, 10))
    np.testing.assert_array_equal(parts[part], 4 * whole[part])


def test_worker_processes_get_what_is_known_of_a_case() -> None:
    """Where they are not forked, as on macOS, everything that they get is pickled."""
    cases = CasesWithIntensities(Masked(), ZeroToOne((None, None), masked=(1,)))  # type: ignore[arg-type]
    expected = cases.load_case("case")[0][:]
    again = pickle.loads(pickle.dumps(cases))
    np.testing.assert_array_equal(again.load_case("case")[0][:], expected)


def test_channels_are_masked_that_nnunet_normalises_in_a_mask() -> None:
    dataset: Any = Faked(["ZScoreNormalization"] * 3, {}, (0.0, 1.0))
    dataset.configuration_manager = SimpleNamespace(use_mask_for_norm=[True, False, True])
    assert INTENSITIES["zero_to_one"](dataset) == ZeroToOne((None, None, None), masked=(0, 2))


def test_a_case_without_anything_inside_its_mask_is_finite() -> None:
    image, mask = np.zeros((1, 3, 4, 5), np.float32), np.full((1, 3, 4, 5), -1, np.int8)
    assert (intensities_of_case(ZeroToOne((None,), masked=(0,)), image, mask) == 0).all()


def test_augmented_values_are_clipped() -> None:
    augmented = torch.tensor([-3.0, 0.0, 2.0, 4.0, 9.0])
    assert after_augmentation(augmented, ZeroToOne((None,))).tolist() == [0, 0, 0.5, 1, 1]
    assert after_augmentation(augmented, AsPreprocessed()) is augmented


def test_sams_own_models_take_values_as_they_are(project: SFRDataset) -> None:
    intensities = intensities_of(project)
    image = np.array([[[[-3.0, 8.0]]]], np.float32)
    assert intensities_of_case(intensities, image, None) is image
