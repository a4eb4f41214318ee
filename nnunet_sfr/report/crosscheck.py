"""The section on the cross-check: tables, calibration of the measures of confidence, pictures of the worst cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_sfr.command_lines import CommandLines, shell_text
from nnunet_sfr.confidence_measures import MEASURES
from nnunet_sfr.crosscheck.estimate import Estimate
from nnunet_sfr.crosscheck.findings import LABELLED_CASES, SHAPE
from nnunet_sfr.crosscheck.printing import source_name
from nnunet_sfr.crosscheck.sources import MEAN, SAM, SOURCES
from nnunet_sfr.data.datasets import LabelledDataset, UnlabelledDataset
from nnunet_sfr.data.file_identity import file_stamps
from nnunet_sfr.data.preprocessed_files import image_hashes, list_preprocessed
from nnunet_sfr.data.pseudo_label_store import PseudoLabelStore
from nnunet_sfr.data.store_files import record_file
from nnunet_sfr.dataset import SFRDataset
from nnunet_sfr.errors import UserError
from nnunet_sfr.json_files import read_json
from nnunet_sfr.report import volumes
from nnunet_sfr.report.case_drawing import DrawingTask, LabelMaps, draw_and_measure
from nnunet_sfr.report.contents import (
    Calibration,
    CalibrationSeries,
    CrossCheck,
    LeftOutExample,
    LeftOutResult,
    LeftOutSource,
    Table,
)
from nnunet_sfr.report.orientation import find_orientation
from nnunet_sfr.report.picture_cache import PICTURES, address, digest_of, picture_name
from nnunet_sfr.report.pictures import Colours
from nnunet_sfr.report.windows import GreyWindow

_AGAIN = "run sfr_crosscheck again"
WORST = 6
"""Cases with pictures, those of SAM's lowest Dice."""
TRUTH = "truth"

Found = Mapping[str, Any]
"""Parts of the result of ``sfr_crosscheck``, of :data:`nnunet_sfr.crosscheck.findings.SHAPE`."""


@dataclass(frozen=True)
class TrueLabels:
    """The labels of preprocessed labelled cases, as a store would give them.

    Args:
        folder: of these cases.
        ignore_label: whose voxels are shown as background; None without one.
    """

    folder: Path
    ignore_label: int | None = None

    def read_labels(self, identifier: str) -> np.ndarray:
        """(1, D, H, W)."""
        labels: np.ndarray = LabelledDataset(str(self.folder), [identifier]).load_case(identifier)[1][:]
        return labels if self.ignore_label is None else np.where(labels == self.ignore_label, 0, labels)


def read_found(dataset: SFRDataset) -> Found | None:
    """The result of ``sfr_crosscheck``; None where it has not run.

    Raises:
        UserError: it is damaged.
    """
    file = dataset.paths.crosscheck_result
    return read_json(file, _AGAIN, SHAPE) if file.is_file() else None


def show_crosscheck(
    found: Found, dataset: SFRDataset, folder: Path, colours: Colours, windows: Sequence[GreyWindow]
) -> tuple[CrossCheck, list[str]]:
    """What the page shows of it, with pictures of the worst cases, which are drawn unless they are there.

    Args:
        found: from :func:`read_found`.
        dataset: planned and preprocessed.
        folder: of the page.
        colours: of the classes.
        windows: of the grey images.

    Returns:
        the contents; and that they are out of date and what could not be shown, one sentence each.
    """
    names = {source: source_name(source, found["nnunet_iterations"]) for source in found["sources"]}
    outdated = _outdated(found, dataset)
    worst, problems = [], [outdated] if outdated else []
    for case in found["sources"][SAM]["cases"][:WORST]:
        try:
            worst.append(_example(dataset, folder, colours, windows, found, case["case"], case["fold"]))
        except UserError as error:
            problems.append(f"no pictures of {case['case']}, which SAM was left without: {error}; {_AGAIN}")
    shown = dict.fromkeys(key for example in worst for key in example.results)
    contents = CrossCheck(
        verdict=found["verdict"],
        tables=tables(found, names),
        calibrations=calibrations(found),
        sources=[LeftOutSource(key, names.get(key, key)) for key in shown],
        worst=worst,
        left_out=found["sources"][SAM]["dice"]["n"],
        outdated=outdated[:1].upper() + outdated[1:],
    )
    return contents, problems


def _outdated(found: Found, dataset: SFRDataset) -> str:
    """A sentence where the labelled cases are others now; empty where they are not, or where that is not recorded."""
    folder, recorded = dataset.paths.labelled, found.get(LABELLED_CASES)
    today = list_preprocessed(folder)
    if recorded is None or not today:
        return ""
    try:
        if recorded == image_hashes(folder, today):
            return ""
    except UserError as error:
        return f"whether the cross-check is of today's labelled cases is not known: {error}"
    # which has no fold
    command = CommandLines.of(dataset.paths, "all").crosscheck(with_nnunet=found["nnunet_iterations"] is not None)
    return (
        f"the cross-check was made with other labelled cases than there are now; run {shell_text(command)} --overwrite"
    )


def tables(found: Found, names: Mapping[str, str]) -> list[Table]:
    """Dice of every class by source and, where there are several, their paired differences.

    Args:
        found: from :func:`read_found`.
        names: of the sources, for the headings.
    """
    sources = found["sources"]
    rows = [
        [
            one["name"],
            *(_text(source["classes"][label]["dice"]) for source in sources.values()),
            str(one["dice"]["n"]),
            str(one["missed"]),
        ]
        for label, one in sources[SAM]["classes"].items()
    ]
    number = str(sources[SAM]["dice"]["n"])
    if len(rows) > 1:
        rows.append(["mean of all", *(_text(source["dice"]) for source in sources.values()), number, "-"])
    if found["expected"] is not None:
        others = ["-"] * (len(sources) - 1)
        expected = [f"{found['expected']:.3f}", *others, str(found["num_unlabelled"]), "-"]
        rows.append(["expected in the unlabelled cases", *expected])
    columns = ["Dice (95 % interval)", *(names[source] for source in sources), "cases", "not found by SAM"]
    made = [Table("Dice of the cases that were left out", columns, rows)]
    if found["differences"]:
        made.append(_differences(found))
    return made


def _differences(found: Found) -> Table:
    classes = found["sources"][SAM]["classes"]
    differences = found["differences"]
    rows = [
        [one["name"], *(_text(difference["classes"][label]) for difference in differences)]
        for label, one in classes.items()
    ]
    if len(rows) > 1:
        rows.append(["mean of all", *(_text(difference["dice"]) for difference in differences)])
    pairs = [f"{SOURCES[difference['source']]} minus {SOURCES[difference['other']]}" for difference in differences]
    return Table("Differences between the sources, paired by case", ["Dice (95 % interval)", *pairs], rows)


def _text(values: Mapping[str, Any]) -> str:
    return str(Estimate(**values)).replace("-", "\N{MINUS SIGN}") if values["n"] else "-"


def calibrations(found: Found) -> list[Calibration]:
    """Every measure that a source has, the best measures first."""
    made = []
    for measure, known in MEASURES.items():
        series = [
            _series(source, findings["measures"][measure])
            for source, findings in found["sources"].items()
            if measure in findings["measures"]
        ]
        if series:
            made.append(Calibration(measure, known.meaning, series))
    return made


def _series(source: str, finding: Mapping[str, Any]) -> CalibrationSeries:
    points = finding["points"]
    cases, confidences, dices = ([point[key] for point in points] for key in ("case", "confidence", "dice"))
    return CalibrationSeries(source, SOURCES[source], finding["rank_correlation"], cases, confidences, dices)


def _example(
    dataset: SFRDataset,
    folder: Path,
    colours: Colours,
    windows: Sequence[GreyWindow],
    found: Found,
    case: str,
    fold: int,
) -> LeftOutExample:
    """A case with its pictures.

    Raises:
        UserError: its files or its labels are not those of today's plan any more.
    """
    paths = dataset.paths
    labelled = {
        source: PseudoLabelStore.open(paths.left_out_labels(fold, source), grid=dataset.grid)
        for source in found["sources"]
        if source != MEAN
    }
    properties_file = paths.labelled / f"{case}.pkl"
    properties = UnlabelledDataset(paths.labelled).read_properties(case)
    label_maps: dict[str, LabelMaps] = {
        TRUTH: TrueLabels(paths.labelled, dataset.label_manager.ignore_label),
        **labelled,
    }
    stamps = file_stamps([properties_file, *(record_file(store.folder, case) for store in labelled.values())])

    def picture(what: str, kind: str = "") -> Path:
        return folder / PICTURES / picture_name((case, "left_out", what), digest_of(colours, case, what, kind, stamps))

    images = {window.key: picture(window.key, repr(window)) for window in windows}
    labels = {key: picture(key) for key in label_maps}
    missing = [file for file in (*images.values(), *labels.values()) if not file.is_file()]
    if missing:
        draw_and_measure(
            DrawingTask(
                case=case,
                images=paths.labelled,
                stores=label_maps,
                centre_of=TRUTH,
                spacing=volumes.grid_spacing(dataset, properties),
                orientation=find_orientation(properties, dataset.plans_manager.transpose_forward),
                colours=colours,
                num_classes=dataset.num_classes,
                windows=windows,
                image_files=images,
                label_files=labels,
            )
        )
    results = {key: _result(address(file), found, key, case) for key, file in labels.items()}
    return LeftOutExample(case, results, {key: address(file) for key, file in images.items()})


def _result(labels: str, found: Found, source: str, case: str) -> LeftOutResult:
    if source == TRUTH:
        return LeftOutResult(labels)
    findings = found["sources"][source]
    of_case = next((one for one in findings["cases"] if one["case"] == case), None)
    if of_case is None:
        return LeftOutResult(labels)
    names = {label: one["name"] for label, one in findings["classes"].items()}
    classes = [(names[label], dice) for label, dice in of_case["classes"].items() if dice is not None]
    return LeftOutResult(labels, of_case["dice"], classes)
