"""Draw some synthetic volumes: ``python demo/picture_of_data.py docs/images/demo_data.png``."""

from __future__ import annotations

import sys
from pathlib import Path

# Python puts the folder of a script on its path, and this script needs the one above it.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from demo.figure import Picture, draw
from demo.synthetic import make_volume

CASES = 4


def main(file: Path) -> None:
    pictures = []
    for index in range(CASES):
        volume = make_volume(0, index)
        size = " x ".join(str(length) for length in volume.image.shape)
        spacing = " x ".join(f"{length:.3g}" for length in volume.spacing)
        note = f"{size} voxels\n{spacing} mm\ntarget: {volume.label.mean():.1%} of them"
        pictures.append(Picture(f"case{index:02d}", note, volume.image, volume.label, None, volume.spacing))
    file.parent.mkdir(parents=True, exist_ok=True)
    draw(pictures, file)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
