"""A tiny project under review: its session, and a server of it."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK

from nnunet_sfr.dataset import SFRDataset
from nnunet_sfr.review.application import make_application
from nnunet_sfr.review.serving import bind, serving
from nnunet_sfr.review.session import Session
from nnunet_sfr.review.session_promise import SessionPromise

TOKEN = "a-token"
FIRST, SECOND = "unlabelled_00", "unlabelled_01"


@dataclass(frozen=True)
class Served:
    """A running server.

    Args:
        host: ``127.0.0.1:<port>``.
        session: that it serves.
    """

    host: str
    session: Session

    @property
    def address(self) -> str:
        return f"http://{self.host}/{TOKEN}/"


@contextmanager
def opened(dataset: SFRDataset) -> Iterator[Session]:
    with ThreadPoolExecutor(1) as executor:
        yield Session(dataset, "all", executor)


@contextmanager
def served(dataset: SFRDataset) -> Iterator[Served]:
    promise, listening = SessionPromise(), bind(None)
    with serving(make_application(promise, TOKEN), listening), opened(dataset) as session:
        promise.fulfil(session)
        yield Served(f"127.0.0.1:{listening.getsockname()[1]}", session)


def read(file: Path) -> np.ndarray:
    """A label map, (slices, height, width)."""
    labels: np.ndarray = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(file)))
    return labels
