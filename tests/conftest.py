"""What every test needs: one thread, nnU-Net without worker processes, and the authors' vectors."""

from __future__ import annotations

import locale
import os
import pkgutil
import sys
from collections.abc import Callable, Iterator, Mapping
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.long_tests import LONG, is_long

# Read when torch and nnU-Net are imported or start workers, so they must be set before any test module is imported.
os.environ.update(
    OMP_NUM_THREADS="1",
    MPLBACKEND="Agg",
    nnUNet_compile="f",
    nnUNet_def_n_proc="1",
    nnUNet_n_proc_DA="0",
)

pytest_plugins = ["tests.project_fixtures"]

REPOSITORY = Path(__file__).resolve().parent.parent
GOLDEN = REPOSITORY / "tests" / "golden"

PLOTS = (
    "nnunetv2.training.logging.nnunet_logger.MetaLogger.plot_progress_png",
    "nnunet_sfr.trainers.epoch_log.plot_losses",
)

Golden = Mapping[str, np.ndarray]


def pytest_make_parametrize_id(val: object) -> str | None:
    """Name bytes by their number: gzip writes the time into its header, and all workers must find the same names."""
    return f"{len(val)} bytes" if isinstance(val, bytes) else None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what tests/long_tests.py names, before pytest selects by marker."""
    for item in items:
        if is_long(item.nodeid):
            item.add_marker(pytest.mark.long)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say which long tests did not run; pytest itself says what was skipped and why."""
    if config.option.markexpr == "not long":
        terminalreporter.section("not run: left to make test-all")
        for long in LONG:
            terminalreporter.write_line(str(long))


@pytest.fixture(scope="session", autouse=True)
def without_plots() -> Iterator[Mapping[str, Any]]:
    """Leave out the two pictures of each epoch, three quarters of a tiny training's time; yields what draws them."""
    drawing = {name: pkgutil.resolve_name(name) for name in PLOTS if "nnunetv2" in sys.modules}
    with pytest.MonkeyPatch.context() as patch:
        for name in drawing:
            patch.setattr(name, lambda *_: None)
        yield drawing


@pytest.fixture(scope="session", autouse=True)
def file_names_without_processes() -> Iterator[None]:
    """Let threads match the names of images: nnU-Net forks twelve processes for it, a quarter of a second each time."""
    with pytest.MonkeyPatch.context() as patch:
        if "nnunetv2" in sys.modules:
            patch.setattr("nnunetv2.utilities.utils.Pool", ThreadPool)
        yield


@pytest.fixture(autouse=True)
def plots_of_tests_that_draw(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, without_plots: Mapping[str, Any]
) -> None:
    """Draw them all the same in tests with the marker ``draws``."""
    if request.node.get_closest_marker("draws") is not None:
        for name, draw in without_plots.items():
            monkeypatch.setattr(name, draw)


@pytest.fixture(autouse=True)
def same_locale() -> Iterator[None]:
    """Undo what a reader of images does to the locale: with that of C, other tests would read UTF-8 as ASCII."""
    before = locale.setlocale(locale.LC_CTYPE)
    yield
    locale.setlocale(locale.LC_CTYPE, before)


@pytest.fixture(scope="session")
def golden() -> Callable[[str], Golden]:
    """Load inputs and outputs of the official implementations by name (tests/golden/README.md)."""

    def load(name: str) -> Golden:
        arrays: dict[str, Any] = dict(np.load(GOLDEN / f"{name}.npz"))
        return arrays

    return load
