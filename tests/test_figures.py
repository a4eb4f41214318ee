"""The drawings of the documentation: what they name exists, words are apart, and the files are those of the scripts."""

from __future__ import annotations

import re
from importlib.metadata import entry_points, version
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from docs.figures import data_flow
from docs.figures.canvas import Canvas
from nnunet_sfr.trainers import find_trainer

REPOSITORY = Path(__file__).resolve().parent.parent
README_LIMIT = 150_000
"""Bytes of a picture that everyone who opens the README loads."""


@pytest.fixture(scope="module")
def canvas() -> Canvas:
    return data_flow.draw()


@pytest.fixture(scope="module")
def written(canvas: Canvas, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("figures") / "data_flow.png"
    canvas.write(file)
    return file


def pixels(file: Path) -> NDArray[np.float64]:
    return np.asarray(Image.open(file).convert("RGB"), dtype=float)


def test_every_command_and_trainer_in_the_drawing_exists(canvas: Canvas) -> None:
    words = " ".join(text.get_text() for text in canvas.axes.texts)
    scripts = re.findall(
        r"^(sfr_\w+) = ", (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"), flags=re.MULTILINE
    )
    drawn = set(re.findall(r"\bsfr_\w+", words))
    assert drawn == {"sfr_plan_and_preprocess", "sfr_finetune", "sfr_pseudolabel", "sfr_select"}
    assert drawn <= set(scripts)
    commands = set(re.findall(r"\bnnUNetv2_\w+", words))
    assert commands == {"nnUNetv2_train", "nnUNetv2_predict"}
    assert commands <= {script.name for script in entry_points(group="console_scripts")}
    trainers = set(re.findall(r"\bnnUNetTrainer\w+", words))
    assert trainers == {"nnUNetTrainerSFR_MT", "nnUNetTrainerSFRPlus_MT"}
    assert all(find_trainer(trainer) for trainer in trainers)


def test_words_are_of_one_size_apart_and_on_the_picture(canvas: Canvas) -> None:
    texts = canvas.axes.texts
    assert {text.get_fontsize() for text in texts} == {12.5}
    whole = canvas.figure.bbox
    boxes = {text.get_text() + str(index): text.get_window_extent() for index, text in enumerate(texts)}
    assert [words for words, box in boxes.items() if not (box.x0 > 0 and box.x1 < whole.x1)] == []
    assert [(one, other) for (one, box), (other, its) in combinations(boxes.items(), 2) if box.overlaps(its)] == []


def test_the_file_appears_whole_small_and_opaque(written: Path) -> None:
    assert [file.name for file in written.parent.iterdir()] == ["data_flow.png"]
    picture = Image.open(written)
    assert picture.width == 1800
    assert "transparency" not in picture.info
    assert pixels(written)[2, 2].min() > 250
    assert written.stat().st_size < README_LIMIT


@pytest.mark.skipif(
    int(version("matplotlib").split(".")[1]) < 10, reason="matplotlib before 3.10 places text elsewhere"
)
def test_the_picture_of_the_documentation_is_up_to_date(written: Path) -> None:
    shown, drawn = pixels(data_flow.PICTURE), pixels(written)
    assert shown.shape == drawn.shape
    # other versions of matplotlib may draw edges a little differently; a word that moves changes thousands of pixels
    assert (np.abs(shown - drawn).max(axis=-1) > 128).sum() < 200, "run python docs/figures/data_flow.py"
