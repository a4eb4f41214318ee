"""The colours of the classes, the same in pictures and charts."""

from __future__ import annotations

import colorsys

from nnunet_sfr.dataset import SFRDataset
from nnunet_sfr.report.contents import LabelClass

OKABE_ITO = ("#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7")
"""Seven colours that colour-blind people tell apart, and that stand out from grey."""
_GOLDEN_RATIO = 0.618034
"""Steps of this share of the colour circle never come close to one another."""


def label_classes(dataset: SFRDataset) -> list[LabelClass]:
    """The foreground classes in the order of their values."""
    names = sorted((int(value), name) for value, name in dataset.class_names.items())
    return [LabelClass(value, name, colour(index)) for index, (value, name) in enumerate(names)]


def colour(index: int) -> str:
    """The colour of the class with this index (from 0), as ``#rrggbb``."""
    if index < len(OKABE_ITO):
        return OKABE_ITO[index]
    red, green, blue = colorsys.hsv_to_rgb((index * _GOLDEN_RATIO) % 1, 0.6, 0.95)
    return "#" + "".join(f"{round(255 * part):02x}" for part in (red, green, blue))


def rgb(text: str) -> tuple[int, int, int]:
    """``#rrggbb`` as three numbers from 0 to 255."""
    return int(text[1:3], 16), int(text[3:5], 16), int(text[5:7], 16)
