"""Embedded views on disk: what a frozen encoder gives for the augmented patches of labelled cases, computed once.

A view is the image embedding of one stitched patch in half precision, with its stitched label map. Every view is a file
of its own, so that memory does not depend on their number, and embedding continues where it was interrupted. Beside the
views of a case lies the recipe that they were made by; a case whose recipe has changed is embedded again.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from nnunet_sfr.atomic import replacing, write_json
from nnunet_sfr.errors import UserError
from nnunet_sfr.json_files import read_json
from nnunet_sfr.locking import file_lock

_RECIPE = "recipe.json"
_LOCK = ".lock"
_EMBEDDING, _TARGET = "embedding", "target"
_HEADER_BYTES = 200
"""About as many in front of the tensors of a file."""


def bytes_of_view(embedding_shape: tuple[int, int, int], canvas_size: int) -> int:
    """Size of a view's file: its embedding and label map, two bytes a number, and the names in front of them.

    Args:
        embedding_shape: (dim, h, w).
        canvas_size: side S of the label map in pixels.
    """
    return 2 * (math.prod(embedding_shape) + canvas_size**2) + _HEADER_BYTES


@dataclass(frozen=True)
class ViewStore:
    """The views of a data set's cases, a folder for each case.

    Several processes may use it at once, as long as they make the views of a case by the same recipe.

    Args:
        folder: :attr:`nnunet_sfr.paths.SFRPaths.sam_views`.
    """

    folder: Path

    def prepare(self, case: str, recipe: Mapping[str, Any]) -> list[str]:
        """Make room for the views of a case; those of another recipe are deleted.

        Args:
            case: its folder.
            recipe: everything that its views depend on; JSON types.

        Returns:
            The names of what has changed since earlier views were made, none if they are up to date or there are none.
        """
        folder = self.folder / case
        file = folder / _RECIPE
        self.folder.mkdir(parents=True, exist_ok=True)
        with file_lock(self.folder / _LOCK):
            before = read_json(file, f"delete {folder}") if file.is_file() else None
            if before == recipe:
                return []
            if folder.is_dir():
                shutil.rmtree(folder)
            write_json(dict(recipe), file)
        return [] if before is None else sorted(key for key in recipe if before.get(key) != recipe[key])

    def missing(self, case: str, count: int) -> list[int]:
        """Those of the first ``count`` views of a case that are not there, or are damaged.

        Args:
            case: folder of the case.
            count: of views that there should be.
        """
        return [index for index in range(count) if not _is_whole(self._file(case, index))]

    def write(self, case: str, index: int, embedding: Tensor, target: Tensor) -> None:
        """Store one view.

        Args:
            case: its folder.
            index: of the view.
            embedding: [dim, h, w].
            target: [S, S], label values and the ignore value of the fine-tuning loss.

        Raises:
            UserError: the disk is full.
        """
        content = {
            _EMBEDDING: embedding.to(torch.float16).cpu().contiguous(),
            _TARGET: target.to(torch.int16).cpu().contiguous(),
        }
        with replacing(self._file(case, index)) as temporary:
            temporary.write_bytes(save(content))

    def read(self, case: str, index: int) -> tuple[Tensor, Tensor]:
        """Embedding [dim, h, w], float32, and target [S, S], int64.

        Args:
            case: folder of the case.
            index: of the view, from 0.

        Raises:
            UserError: the file is missing or damaged.
        """
        file = self._file(case, index)
        try:
            content = load_file(file)
        except (OSError, SafetensorError) as error:
            raise UserError(f"{file}: cannot be read ({error}); run sfr_finetune again, which makes it again") from None
        return content[_EMBEDDING].float(), content[_TARGET].long()

    def _file(self, case: str, index: int) -> Path:
        return self.folder / case / f"view_{index:05d}.safetensors"


def _is_whole(file: Path) -> bool:
    if not file.is_file():
        return False
    try:
        with safe_open(file, framework="pt") as content:
            return {_EMBEDDING, _TARGET} <= set(content.keys())
    except (OSError, SafetensorError):
        return False
