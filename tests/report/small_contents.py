"""A report of five cases whose every number is written here, so that tests can say what the page must show."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from nnunet_sfr.report.contents import (
    Alert,
    Calibration,
    CalibrationSeries,
    Contents,
    CrossCheck,
    Curve,
    CurvePanel,
    LabelClass,
    LeftOutExample,
    LeftOutResult,
    LeftOutSource,
    MosaicPictures,
    ReportCase,
    ReportSource,
    ReportWindow,
    SourceResult,
    Table,
    Training,
)

HOSTILE = "<img src=x onerror=document.title='harmed'></script><!--&amp;"
"""A name that would do harm where it is taken for HTML."""
SAM, MODEL = "round_0", "trainer_round_1"


def draw(name: str, folder: Path, size: tuple[int, int] = (30, 10)) -> str:
    """A picture of noise, (width, height) in pixels, at ``name`` below ``folder``."""
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(len(name)).integers(0, 255, size=size[::-1], dtype=np.uint8)
    Image.fromarray(noise).save(file)
    return name


def small_contents(folder: Path) -> Contents:
    """Five cases of two sources, and one of everything else; the pictures lie below ``folder``."""

    def view(confidence: float | None, volume: float, number: int, *, outliers: tuple[str, ...] = ()) -> SourceResult:
        return SourceResult(confidence, {"1": volume}, outliers, draw(f"pictures/model {number}#?.png", folder))

    def sam_view(confidence: float, number: int) -> SourceResult:
        mosaic = MosaicPictures(
            draw(f"pictures/mosaic_{number}.png", folder, (20, 20)),
            draw(f"pictures/mosaic_labels_{number}.png", folder, (20, 20)),
        )
        return SourceResult(confidence, {"1": 40.0}, (), draw(f"pictures/sam_{number}.png", folder), mosaic)

    def images(number: int) -> dict[str, str]:
        return {key: draw(f"pictures/{key}_{number}.png", folder) for key in ("soft_tissue", "lung")}

    cases = [
        ReportCase(HOSTILE, {SAM: sam_view(0.6, 0), MODEL: view(0.9, 60.0, 0)}, {"1": "high"}, 0.1, images=images(0)),
        ReportCase(
            "case_1",
            {SAM: sam_view(0.8, 1), MODEL: view(0.95, 50.0, 1)},
            {"1": "high"},
            0.2,
            images=images(1),
        ),
        ReportCase(
            "case_2",
            {SAM: sam_view(0.7, 2), MODEL: view(0.7, 5.0, 2, outliers=("1",))},
            {"1": "low"},
            0.6,
            annotation_rank=2,
            annotation_reasons=["not sure", 'says "no", twice'],
        ),
        ReportCase("case_3", {SAM: sam_view(0.5, 3)}, images=images(3)),
        ReportCase(
            "case_10",
            {MODEL: view(None, 0.0, 10)},
            {"1": "low"},
            annotation_rank=1,
            annotation_reasons=["nothing was found"],
        ),
    ]
    return Contents(
        dataset="Dataset007_Tiny",
        configuration="3d_fullres",
        plans="nnUNetPlans",
        fold="all",
        created="2026-11-21T22:30:00+00:00",
        facts=[("unlabelled cases", "5"), ("how", "a sentence that is too long to stand in a tile of its own")],
        classes=[LabelClass(1, "<b>heart</b>", "#e69f00")],
        sources=[
            ReportSource(SAM, "SAM, round 0", "agreement"),
            ReportSource(MODEL, "model, round 1", "estimated_dice", 0.85),
        ],
        cases=cases,
        trainings=[
            Training("MT", "epoch", [CurvePanel("loss", [Curve("a", [0, 1, 2], [1, 0.5, 0]), Curve("b", [0], [2])])])
        ],
        rounds=Table("Rounds", ["", "round 0", "round 1"], [["high", "-", "2"]]),
        settings=[
            Table(
                "rounds",
                ["setting", "value", "planned"],
                [["share", "0.5", "0.5"], ["tau", "0.85", "0.985"], ["canvas", "512", "unknown"]],
            )
        ],
        versions=Table("Versions", ["what", "made by"], [["this page", "nnunet_sfr 0.2.0"]]),
        missing=["Curves of SAM are missing: sfr_finetune makes them."],
        windows=[
            ReportWindow("soft_tissue", "soft tissue (-160 to 240 HU)"),
            ReportWindow("lung", "lung (-1350 to 150 HU)"),
        ],
        alerts=[
            Alert("model, round 1: 1 of 2 classes found in none of the 4 cases: <i>aorta</i>", MODEL),
            Alert("model, round 1: no foreground in 1 of 4 cases", MODEL, ["case_10"]),
        ],
    )


def small_crosscheck(folder: Path) -> CrossCheck:
    """Two of three cases that SAM and nnU-Net were left without, with pictures, and two measures of confidence."""

    def example(name: str, number: int, dice: float) -> LeftOutExample:
        labels = {key: draw(f"pictures/left_out_{key}_{number}.png", folder) for key in ("truth", "sam", "nnunet")}
        results = {
            "truth": LeftOutResult(labels["truth"]),
            "sam": LeftOutResult(labels["sam"], dice, [("<b>heart</b>", dice)]),
            "nnunet": LeftOutResult(labels["nnunet"], 0.75, [("<b>heart</b>", 0.7), ("aorta", 0.8)]),
        }
        images = {key: draw(f"pictures/left_out_{key}_{number}.png", folder) for key in ("soft_tissue", "lung")}
        return LeftOutExample(name, results, images)

    names = (HOSTILE, "left_2", "left_3")
    of_sam = CalibrationSeries("sam", "SAM", 0.5, names, (0.6, 0.7, 0.9), (0.5, 0.8, 0.7))
    of_network = CalibrationSeries("nnunet", "nnU-Net", None, names[:2], (0.8, 0.8), (0.7, 0.8))
    return CrossCheck(
        verdict="SFR may help: <i>few</i> cases",
        tables=[
            Table("Dice", ["Dice (95 % interval)", "SAM", "nnU-Net"], [["<b>heart</b>", "0.667 (0.5 to 0.8)", "0.750"]])
        ],
        calibrations=[
            Calibration("flip_agreement", "Dice of mirrored images", [of_sam, of_network]),
            Calibration("sam_agreement", "Dice with SAM's labels", [of_network]),
        ],
        sources=[LeftOutSource("truth", "truth"), LeftOutSource("sam", "SAM"), LeftOutSource("nnunet", "nnU-Net")],
        worst=[example(HOSTILE, 1, 0.5), example("left_3", 2, 0.7)],
        left_out=3,
        outdated="made with <b>other</b> cases; run sfr_crosscheck",
    )
