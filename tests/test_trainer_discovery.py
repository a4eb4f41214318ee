"""nnU-Net's own search finds our trainers, and the variable that leads it here keeps what the user set."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys

import pytest
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

from nnunet_sfr import trainers
from nnunet_sfr.environment import PLUGIN_FOLDER, TRAINER_PATH_VARIABLE, announce_trainers


class nnUNetTrainerStandIn(nnUNetTrainer):
    """A trainer with the one attribute that the search sets."""

    requested_epochs: int | None = None


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> type[nnUNetTrainerStandIn]:
    """Registers the class above and lets the variable name our folder alone."""
    monkeypatch.setitem(trainers.TRAINERS, "nnUNetTrainerStandIn", f"{__name__}:nnUNetTrainerStandIn")
    monkeypatch.setenv(TRAINER_PATH_VARIABLE, PLUGIN_FOLDER)
    return nnUNetTrainerStandIn


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, [PLUGIN_FOLDER]),
        ("", [PLUGIN_FOLDER]),
        ("/mine", ["/mine", PLUGIN_FOLDER]),
        (f"/mine{os.pathsep}/yours", ["/mine", "/yours", PLUGIN_FOLDER]),
        (PLUGIN_FOLDER, [PLUGIN_FOLDER]),
        (f"{PLUGIN_FOLDER}{os.sep}{os.pathsep}/mine", [f"{PLUGIN_FOLDER}{os.sep}", "/mine"]),
    ],
    ids=["unset", "empty", "another", "two others", "ours", "ours with a slash"],
)
def test_announcement_extends_the_variable(
    monkeypatch: pytest.MonkeyPatch, before: str | None, after: list[str]
) -> None:
    if before is None:
        monkeypatch.delenv(TRAINER_PATH_VARIABLE, raising=False)
    else:
        monkeypatch.setenv(TRAINER_PATH_VARIABLE, before)
    announce_trainers()
    announce_trainers()
    assert os.environ[TRAINER_PATH_VARIABLE].split(os.pathsep) == after


def test_nnunet_finds_a_trainer_with_any_number_of_epochs(stand_in: type[nnUNetTrainerStandIn]) -> None:
    found = recursive_find_trainer_class_by_name("nnUNetTrainerStandIn_7epochs")
    assert found is recursive_find_trainer_class_by_name("nnUNetTrainerStandIn_7epochs")
    assert found.__name__ == found.__qualname__ == "nnUNetTrainerStandIn_7epochs"
    assert issubclass(found, stand_in)
    assert found.requested_epochs == 7
    assert stand_in.requested_epochs is None
    assert recursive_find_trainer_class_by_name("nnUNetTrainerStandIn_12epochs").requested_epochs == 12
    assert recursive_find_trainer_class_by_name("nnUNetTrainerStandIn") is stand_in


@pytest.mark.parametrize("suffix", ["_0epochs", "_epochs", "_007epochs", "_-1epochs", "_7epochs\n", "_7epochs_8epochs"])
def test_other_suffixes_are_not_found(stand_in: type[nnUNetTrainerStandIn], suffix: str) -> None:
    assert trainers.find_trainer(f"{stand_in.__name__}{suffix}") is None


def test_unknown_trainer_gives_the_error_of_nnunet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TRAINER_PATH_VARIABLE, PLUGIN_FOLDER)
    with pytest.raises(RuntimeError, match="Could not find requested nnunet trainer nnUNetTrainerUnknown_5epochs"):
        recursive_find_trainer_class_by_name("nnUNetTrainerUnknown_5epochs")


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("nnUNetTrainerSFR_Mt", "did you mean nnUNetTrainerSFR_MT?"),
        ("nnUNetTrainer_SFR_MT", "did you mean nnUNetTrainerSFR_MT?"),
        ("nnunettrainer_magicnet_5epochs", "did you mean nnUNetTrainer_MagicNet_5epochs?"),
        ("nnUNetTrainerSFR_MT_epochs_5", "did you mean nnUNetTrainerSFR_MT_5epochs?"),
        ("nnUNetTrainerSFR_MT_0epochs", "did you mean nnUNetTrainerSFR_MT?"),
        ("nnUNetTrainerSFRPlus_MT_round1", "did you mean nnUNetTrainerSFRPlus_MT?"),
        ("nnUNetTrainerSFR_ACMT_round2_5epoch", "did you mean nnUNetTrainerSFRPlus_ACMT_round2_5epochs?"),
        ("nnUNetTrainerSFR_MeanTeacher", "there is nnUNetTrainerSFR_ with MT, ACMT, "),
    ],
)
def test_a_name_that_is_nearly_ours_ends_the_search_with_what_was_meant(
    monkeypatch: pytest.MonkeyPatch, typed: str, said: str
) -> None:
    monkeypatch.setenv(TRAINER_PATH_VARIABLE, PLUGIN_FOLDER)
    with pytest.raises(SystemExit, match=f"^error: -tr {typed}: no such trainer; ") as ended:
        recursive_find_trainer_class_by_name(typed)
    assert said in str(ended.value)
    # a folder behind ours may have such a trainer
    monkeypatch.setenv(TRAINER_PATH_VARIABLE, f"{PLUGIN_FOLDER}{os.pathsep}/mine")
    with pytest.raises(RuntimeError, match="Could not find requested nnunet trainer"):
        recursive_find_trainer_class_by_name(typed)


def test_class_made_on_request_survives_pickling(stand_in: type[nnUNetTrainerStandIn]) -> None:
    found = trainers.find_trainer(f"{stand_in.__name__}_3epochs")
    assert found is not None
    assert pickle.loads(pickle.dumps(found)) is found


ROUNDS = [
    ("nnUNetTrainerSFRPlus_MT", 1, None),
    ("nnUNetTrainerSFRPlus_MT_5epochs", 1, 5),
    ("nnUNetTrainerSFRPlus_ST_round2", 2, None),
    ("nnUNetTrainerSFRPlus_MagicNet_round10_5epochs", 10, 5),
]
"""Trainers that are made on request: name, round and epochs."""


@pytest.mark.parametrize(
    ("name", "round_index", "epochs"),
    ROUNDS,
)
def test_nnunet_finds_a_trainer_of_any_round(
    name: str, round_index: int, epochs: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TRAINER_PATH_VARIABLE, PLUGIN_FOLDER)
    found = recursive_find_trainer_class_by_name(name)
    assert found is recursive_find_trainer_class_by_name(name)
    assert found.__name__ == found.__qualname__ == name
    assert (found.round_index, found.requested_epochs) == (round_index, epochs)
    base = trainers.find_trainer(name.split("_round")[0].removesuffix("_5epochs"))
    assert base is not None
    assert issubclass(found, base)
    assert base.round_index == 1  # type: ignore[attr-defined]


def test_trainers_of_any_round_are_unpickled_where_no_such_class_was_made_yet() -> None:
    pickled = [pickle.dumps(trainers.find_trainer(name)) for name, _, _ in ROUNDS]
    code = (
        "import pickle\n"
        f"for found in map(pickle.loads, {pickled!r}):\n"
        "    print(found.__name__, found.round_index, found.requested_epochs)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert [line.split() for line in result.stdout.splitlines()] == [list(map(str, expected)) for expected in ROUNDS]


@pytest.mark.parametrize(
    "name",
    [
        "nnUNetTrainerSFRPlus_MT_round1",  # one name for one thing
        "nnUNetTrainerSFRPlus_MT_round0",
        "nnUNetTrainerSFRPlus_MT_round02",
        "nnUNetTrainerSFRPlus_MT_round",
        "nnUNetTrainerSFRPlus_MT_round1_5epochs",
        "nnUNetTrainerSFRPlus_MT_round2_round3",
        "nnUNetTrainerSFRPlus_MT_5epochs_round2",
        "nnUNetTrainerSFRPlus_MT_round2_0epochs",
        "nnUNetTrainerSFRPlus_MT_round2\n",
        "nnUNetTrainerSFRPlus",
        "nnUNetTrainerSFR_MT_round2",
        "nnUNetTrainer_MT_round2_5epochs",
    ],
)
def test_other_rounds_are_not_found(name: str) -> None:
    assert trainers.find_trainer(name) is None


def test_every_trainer_of_the_tables_is_found_under_its_own_name() -> None:
    for name in (*trainers.TRAINERS, *trainers.ROUND_TRAINERS):
        found = trainers.find_trainer(name)
        assert found is not None
        assert found.__name__ == name
        # Without the attribute on the base class the suffix would change nothing.
        assert found.requested_epochs is None  # type: ignore[attr-defined]


def test_search_for_trainers_of_others_imports_neither_torch_nor_a_trainer() -> None:
    code = (
        f"import sys; sys.path.insert(0, {PLUGIN_FOLDER!r})\n"
        "import nnunet_sfr_trainers as plugin\n"
        "assert not any(hasattr(plugin, name) for name in ('nnUNetTrainer', '__path__', '__all__', '__wrapped__'))\n"
        "print(sorted(name for name in sys.modules if name in ('torch', 'nnunetv2', 'numpy')\n"
        "    or name.startswith('nnunet_sfr.trainers.')))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    # the table of methods, which gives the trainers their names, and nothing that it would import
    assert result.stdout.strip() == "['nnunet_sfr.trainers.methods']"
