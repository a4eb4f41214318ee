"""A believable report of made-up cases: for tests, for the benchmark and for the README's picture."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from nnunet_sfr.report.contents import (
    Contents,
    Curve,
    CurvePanel,
    LabelClass,
    MosaicPictures,
    ReportCase,
    ReportSource,
    ReportWindow,
    SourceResult,
    Table,
    Training,
)

CLASSES = (LabelClass(1, "left atrium", "#e69f00"), LabelClass(2, "aorta", "#56b4e9"))
SOURCES = (
    ReportSource("round_0", "SAM, round 0", "agreement"),
    ReportSource("nnUNetTrainerSFR_MT_round_0", "SFR_MT, round 0", "estimated_dice", 0.9),
    ReportSource("nnUNetTrainerSFRPlus_MT_round_1", "SFRPlus_MT, round 1", "estimated_dice", 0.92),
)
VOLUMES = np.array([65.0, 30.0])
"""Typical ones of the classes in ml."""
CENTRES = ((0.56, 0.50), (0.72, 0.62))
RADII = (0.13, 0.05)
"""Where the classes lie in every plane, in parts of its side."""
BODIES = ((0.38, 0.48), (0.60, 0.44), (0.60, 0.33))
"""Radii of the body in the axial, coronal and sagittal plane."""
WINDOW = ReportWindow("percentiles", "0.5 to 99.5 percentile of each image")
SIDE = 192
"""Pixels along each of a picture's three planes; a mosaic's tiles have half of it."""
TILES = 3
ANNOTATED = 10
"""Cases in the list of those worth annotating."""
FAILED = 0.25
"""Quality below which volumes are far off."""
DISPUTED = 0.4
"""Disagreement that is given as a reason to annotate."""
EPOCHS = 200
ITERATIONS = 400

Numbers = np.ndarray


def make_contents(number: int, folder: Path, *, seed: int = 0) -> Contents:
    """Draw the pictures and tell of them.

    Args:
        number: of cases.
        folder: gets a folder ``pictures``.
        seed: of everything that is made up.
    """
    generator = np.random.default_rng(seed)
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    quality = generator.beta(3, 1.2, size=number)
    volumes = np.exp(generator.normal(np.log(VOLUMES), 0.25, size=(number, len(CLASSES))))
    failed = quality < FAILED
    volumes[failed] *= generator.choice([0.12, 2.8], size=(int(failed.sum()), 1))
    if number > 1:
        volumes[np.argmin(quality)] = 0.0
    cases = [
        _case(f"LA_{index + 1:04d}", float(quality[index]), volumes[index], folder, generator)
        for index in range(number)
    ]
    return Contents(
        dataset="Dataset216_LA",
        configuration="3d_fullres",
        plans="nnUNetPlans",
        fold="all",
        created="2026-11-21T22:30:00",
        facts=[
            ("labelled cases", "4"),
            ("unlabelled cases", f"{number:,}"),
            ("rounds of SFR+", "2"),
            ("target spacing in mm", "1.25 x 1.25 x 1.25"),
            ("patch in voxels", "112 x 160 x 128"),
        ],
        classes=CLASSES,
        sources=SOURCES,
        cases=_with_ranks(cases),
        trainings=_trainings(generator),
        rounds=_rounds(cases),
        settings=_settings(),
        versions=_versions(),
        windows=[WINDOW],
        missing=[
            "SAM's labels of round 2 are missing: sfr_pseudolabel -d 216 -c 3d_fullres -f all --round 2 makes them."
        ],
    )


def _with_ranks(cases: list[ReportCase]) -> list[ReportCase]:
    """The lowest confidences are the most worth annotating."""
    latest = SOURCES[-1].key
    order = sorted(cases, key=lambda case: case.results[latest].confidence or 0.0)
    ranks = {case.name: rank for rank, case in enumerate(order[:ANNOTATED], start=1)}
    return [
        replace(case, annotation_rank=ranks[case.name], annotation_reasons=_reasons(case))
        if case.name in ranks
        else case
        for case in cases
    ]


def _reasons(case: ReportCase) -> list[str]:
    view = case.results[SOURCES[-1].key]
    found = ["nothing was found" if view.confidence is None else f"confidence {view.confidence:.3f}"]
    if case.disagreement is not None and case.disagreement > DISPUTED:
        found.append(f"SAM and the model disagree ({case.disagreement:.2f})")
    if view.outliers:
        found.append("unusual volume")
    return found


def _case(name: str, quality: float, volumes: Numbers, folder: Path, generator: np.random.Generator) -> ReportCase:
    images = [_plane(body, generator) for body in BODIES]
    sizes = (volumes / VOLUMES) ** (1 / 3)
    is_empty = not volumes.any()
    results = {}
    for place, source in enumerate(SOURCES):
        blur = (1 - quality) * (0.9 - 0.3 * place)
        confidence = float(np.clip(1 - blur * generator.uniform(0.4, 0.9), 0.02, 0.995))
        overlays = [_labels(sizes, blur, generator) for _ in images]
        measured = volumes * (1 + blur * generator.normal(0, 0.1, size=len(CLASSES)))
        results[source.key] = SourceResult(
            confidence=None if is_empty else round(confidence, 4),
            volumes_ml={str(one.value): round(float(ml), 2) for one, ml in zip(CLASSES, measured, strict=True)},
            outliers=[str(one.value) for one, size in zip(CLASSES, sizes, strict=True) if not 0.7 < size < 1.3],
            labels=_saved(np.concatenate(overlays, axis=1), folder, f"pictures/{name}_{source.key}.webp"),
            mosaic=_mosaic(images[0], sizes, blur, folder, f"pictures/{name}_mosaic", generator)
            if place == 0
            else None,
        )
    sides = {
        str(number): "high" if (results[source.key].confidence or 0.0) >= (source.threshold or 0.0) else "low"
        for number, source in enumerate(SOURCES[1:], start=1)
    }
    disagreement = float(np.clip((1 - quality) * generator.uniform(0.4, 1.2) + 0.04, 0, 1))
    grey = _saved(np.concatenate(images, axis=1), folder, f"pictures/{name}.webp")
    return ReportCase(name, results, sides, None if is_empty else round(disagreement, 4), images={WINDOW.key: grey})


def _plane(body: tuple[float, float], generator: np.random.Generator) -> Numbers:
    """A noisy body with a heart, (SIDE, SIDE), in [0, 1]; ``body`` are its radii in parts of the side."""
    height, width = body
    image = 0.04 + 0.3 * _ellipse((0.5, 0.5), body, 0.03)
    for side in (-1, 1):
        lung = 0.5 + side * width * generator.uniform(0.55, 0.62)
        image -= 0.2 * _ellipse((0.45, lung), (height * 0.62, width * 0.27), 0.08)
    image += 0.14 * _ellipse((0.52, 0.50), (0.24, 0.20), 0.1)
    for centre, radius in zip(CENTRES, RADII, strict=True):
        stretch = generator.uniform(0.9, 1.1, size=2)
        image += 0.3 * _ellipse(centre, (radius * stretch[0], radius * stretch[1]), 0.12)
    coarse = np.kron(generator.normal(size=(SIDE // 8, SIDE // 8)), np.ones((8, 8)))
    return np.asarray(np.clip(image + 0.025 * generator.normal(size=(SIDE, SIDE)) + 0.008 * coarse, 0, 1))


def _ellipse(centre: tuple[float, float], radii: tuple[float, float], softness: float) -> Numbers:
    """1 inside and 0 outside, (SIDE, SIDE); all lengths in parts of the side."""
    y, x = np.mgrid[0:SIDE, 0:SIDE] / SIDE
    distance = np.hypot((y - centre[0]) / radii[0], (x - centre[1]) / radii[1])
    return np.asarray(1 / (1 + np.exp(np.clip((distance - 1) / softness, -50, 50))))


def _labels(sizes: Numbers, blur: float, generator: np.random.Generator) -> Numbers:
    """The classes on a transparent ground, (SIDE, SIDE, 4); the more blur, the farther they are from the truth."""
    coloured = np.zeros((SIDE, SIDE, 4))
    for one, size, centre, radius in zip(CLASSES, sizes, CENTRES, RADII, strict=True):
        y, x = centre + blur * generator.normal(0, 0.06, size=2)
        height, width = np.maximum(radius * size * (1 + blur * generator.normal(0, 0.3, size=2)), 1e-3)
        inside = _ellipse((y, x), (height, width), 0.05) > 0.5
        within = np.all([np.roll(inside, by, axis) for by in (-1, 1) for axis in (0, 1)], axis=0)
        colour = [int(one.colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        coloured[inside] = (*colour, 0.3)
        coloured[inside & ~within] = (*colour, 1.0)
    return coloured


def _mosaic(
    image: Numbers, sizes: Numbers, blur: float, folder: Path, name: str, generator: np.random.Generator
) -> MosaicPictures:
    """Tiles from one end of the heart to the other: it grows and shrinks again."""
    thickness = np.sin(np.linspace(0.3, np.pi - 0.3, TILES * TILES))
    tiles = [_labels(sizes * part, blur / 3, generator)[::2, ::2] for part in thickness]
    rows = [np.concatenate(tiles[start : start + TILES], axis=1) for start in range(0, TILES * TILES, TILES)]
    return MosaicPictures(
        _saved(np.tile(image[::2, ::2], (TILES, TILES)), folder, f"{name}.webp"),
        _saved(np.concatenate(rows, axis=0), folder, f"{name}_labels.webp"),
    )


def _saved(image: Numbers, folder: Path, name: str) -> str:
    is_overlay = image.ndim == 3
    Image.fromarray((255 * image).astype(np.uint8)).save(folder / name, quality=80, method=1, lossless=is_overlay)
    return name


def _trainings(generator: np.random.Generator) -> list[Training]:
    def falling(start: float, end: float, points: int, noise: float) -> list[float]:
        time = np.linspace(0, 1, points)
        curve = end + (start - end) * np.exp(-4 * time) + generator.normal(0, noise, size=points)
        return [round(float(value), 4) for value in curve]

    epochs, iterations = list(range(EPOCHS)), list(range(0, ITERATIONS * 10, 10))
    rising = [round(0.1 * float(np.exp(-5 * (1 - min(epoch / 120, 1)) ** 2)), 4) for epoch in epochs]
    return [
        Training(
            "SAM's fine-tuning, round 0",
            "iteration",
            [
                CurvePanel("Dice loss", [Curve("Dice loss", iterations, falling(0.9, 0.12, ITERATIONS, 0.02))]),
                CurvePanel("cross-entropy", [Curve("cross-entropy", iterations, falling(0.7, 0.05, ITERATIONS, 0.02))]),
            ],
        ),
        Training(
            "SFR_MT",
            "epoch",
            [
                CurvePanel(
                    "whole loss",
                    [
                        Curve("training", epochs, falling(0.6, -0.86, EPOCHS, 0.02)),
                        Curve("validation", epochs, falling(0.6, -0.78, EPOCHS, 0.03)),
                    ],
                ),
                CurvePanel("consistency", [Curve("consistency", epochs, falling(0.09, 0.012, EPOCHS, 0.002))]),
                CurvePanel("pseudo-labels", [Curve("pseudo-labels", epochs, falling(0.5, -0.8, EPOCHS, 0.02))]),
                CurvePanel("weight of the consistency", [Curve("weight", epochs, rising)]),
            ],
        ),
    ]


def _rounds(cases: list[ReportCase]) -> Table:
    high = [sum(case.sides[number] == "high" for case in cases) for number in ("1", "2")]
    return Table(
        "Rounds",
        ["", "round 0", "round 1", "round 2"],
        [
            ["high cases", "", *map(str, high)],
            ["low cases", "", *(str(len(cases) - number) for number in high)],
            ["median confidence of SAM", "0.9012", "0.9377", ""],
            ["median confidence of the model", "0.9310", "0.9468", ""],
        ],
    )


def _settings() -> list[Table]:
    columns = ["setting", "value", "planned"]
    return [
        Table("stitching", columns, [["overlap", "0.5", "0.5"], ["canvas_size", "512", "512"]]),
        Table(
            "fine_tuning",
            columns,
            [["iterations", "4000", "20000"], ["learning_rate", "0.0001", "0.0001"], ["views", "32", "32"]],
        ),
        Table(
            "rounds", columns, [["threshold", "0.92", "0.985"], ["measure", "estimated_dice", "mean_max_probability"]]
        ),
    ]


def _versions() -> Table:
    ours = "nnunet_sfr 0.2.0"
    return Table(
        "Versions",
        ["what", "made by"],
        [
            ["SAM, round 0", f"{ours}; source sam, lora 3f9a1c20"],
            ["SFR_MT, round 0", f"{ours}; trainer nnUNetTrainerSFR_MT, checkpoint 90be71d4"],
            ["this page", f"{ours}, nnunetv2 2.8.1, torch 2.15.0, Python 3.11.7"],
        ],
    )
