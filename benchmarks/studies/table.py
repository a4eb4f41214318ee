"""The table of a study, for benchmarks/README.md, and its numbers as JSON, for the bar chart."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.report import aligned_table, replace_section, with_facts
from benchmarks.studies.gap import share_of_gap
from benchmarks.studies.pseudo_labels import measure_pseudo_labels
from benchmarks.studies.results import METRICS, TrainerResults, read_results, spread
from benchmarks.studies.study import ALL_LABELS, STOCK, Study, StudyFolders
from benchmarks.workspace import CONFIGURATION
from nnunet_sfr.atomic import replacing, write_json
from nnunet_sfr.errors import UserError
from nnunet_sfr.evaluation.bootstrap import paired_bootstrap
from nnunet_sfr.json_files import read_json

BENCHMARKS = Path(__file__).resolve().parent.parent
HEADING = (
    "trainer",
    "Dice",
    "of each seed",
    "lowest case",
    "difference to nnUNetTrainer (95 %)",
    "share of the gap closed (95 %)",
    "95HD (mm)",
    "ASD (mm)",
    "time (min)",
    "step (s)",
    "peak memory (MiB)",
)
LABELS_HEADING = ("pseudo-labels of the unlabelled cases", "Dice", "of each seed")


def write_results(study: Study, workspace: StudyFolders, *, update_readme: bool) -> str:
    """Evaluate, and write ``results.json`` and ``table.md`` into the study's folder.

    Args:
        study: what was run.
        workspace: where.
        update_readme: put table and numbers into ``benchmarks/`` too.

    Returns:
        The table.

    Raises:
        UserError: no run is finished.
    """
    results = read_results(workspace)
    if not results:
        raise UserError(f"{workspace.folder}: no run is finished; run without --table-only first")
    labels = measure_pseudo_labels(study, workspace)
    tables = [aligned_table(_without_empty_columns([HEADING, *_lines(results)]))]
    if len(results[0].classes) > 1:
        tables.append(aligned_table(_class_lines(results)))
    if labels:
        tables.append(aligned_table([LABELS_HEADING, *_label_lines(labels)]))
    table = with_facts("\n\n".join(tables), _facts(study, workspace, results))
    counts = {"labelled": study.labelled, "unlabelled": _unlabelled(workspace), "test": _case_count(results)}
    numbers = {**_numbers(study, results, counts), "pseudo_labels": labels}
    write_json(numbers, workspace.folder / "results.json")
    with replacing(workspace.folder / "table.md") as temporary:
        temporary.write_text(table + "\n", encoding="utf-8")
    if update_readme:
        name = f"{study.dataset.lower()}_{study.name}"
        replace_section(BENCHMARKS / "README.md", name, table)
        write_json(numbers, BENCHMARKS / "results" / f"{name}.json")
    return table


def _lines(results: Sequence[TrainerResults]) -> list[list[str]]:
    stock = next((result for result in results if result.trainer == STOCK), None)
    full = next((result for result in results if result.trainer == ALL_LABELS), None)
    return [
        [
            result.trainer,
            mean_and_spread(list(result.seed_means("dice").values()), 3),
            ", ".join(f"{value:.3f}" for value in result.seed_means("dice").values()),
            f"{min(result.case_means('dice', result.cases).values(), default=math.nan):.3f}",
            _difference(result, stock),
            _share(result, stock, full),
            mean_and_spread(list(result.seed_means("hd95_mm").values()), 1),
            mean_and_spread(list(result.seed_means("asd_mm").values()), 1),
            f"{result.mean_record('seconds') / 60:.1f}",
            f"{statistics.fmean(_last_step(record) for record in result.records.values()):.2f}",
            f"{result.mean_record('peak_memory_bytes') / 2**20:.0f}",
        ]
        for result in results
    ]


def _without_empty_columns(cells: Sequence[Sequence[str]]) -> list[list[str]]:
    """A share of the gap needs runs that not every study has."""
    filled = [index for index in range(len(cells[0])) if any(line[index] for line in cells[1:])]
    return [[line[index] for index in filled] for line in cells]


def _class_lines(results: Sequence[TrainerResults]) -> list[list[str]]:
    """Dice of every class."""
    names = results[0].classes
    heading = ["Dice of each class", *names]
    return [heading] + [
        [result.trainer, *(f"{statistics.fmean(result.class_means('dice', name).values()):.3f}" for name in names)]
        for result in results
    ]


def _label_lines(labels: Mapping[str, Sequence[float]]) -> list[list[str]]:
    return [
        [name, mean_and_spread(values, 3), ", ".join(f"{value:.3f}" for value in values)]
        for name, values in labels.items()
    ]


def _last_step(record: Any) -> float:
    """Median seconds of a step; of SFR+ that of its last round."""
    steps = record["median_step_seconds"]
    return float(steps[-1])


def mean_and_spread(values: Sequence[float], decimals: int) -> str:
    """``0.781 ± 0.012``, the spread over seeds; without it for a single seed."""
    mean, deviation = statistics.fmean(values), spread(values)
    return f"{mean:.{decimals}f}" + ("" if deviation is None else f" ± {deviation:.{decimals}f}")


def _difference(result: TrainerResults, stock: TrainerResults | None) -> str:
    """Paired over the test cases that both have, each averaged over the seeds that both have."""
    if stock is None or result is stock:
        return ""
    seeds = sorted(set(result.cases) & set(stock.cases))
    if not seeds:
        return ""
    ours, theirs = result.case_means("dice", seeds), stock.case_means("dice", seeds)
    cases = [case for case in theirs if case in ours]
    if not cases:
        return ""
    mean, low, high = paired_bootstrap([ours[case] for case in cases], [theirs[case] for case in cases])
    return f"{mean:+.3f} ({low:+.3f} to {high:+.3f})"


def _share(result: TrainerResults, stock: TrainerResults | None, full: TrainerResults | None) -> str:
    if stock is None or full is None or result in (stock, full):
        return ""
    cases = sorted(set.intersection(*(set(one.case_means("dice", one.cases)) for one in (result, stock, full))))
    if not cases:
        return ""
    share = share_of_gap(*(one.matrix("dice", cases) for one in (result, stock, full)))
    if math.isnan(share.value):
        return "no gap"
    return f"{share.value:.2f} ({share.low:.2f} to {share.high:.2f})"


def _facts(study: Study, workspace: StudyFolders, results: Sequence[TrainerResults]) -> dict[str, str]:
    records = [record for result in results for record in result.records.values()]
    facts = {
        "data": f"{_title(study)}, {_labelled(study)}, {_unlabelled(workspace)} unlabelled, "
        f"{_case_count(results)} to test, "
        + ("nnU-Net's spacing" if study.spacing is None else f"target spacing {study.spacing:g} mm"),
        "training": f"{study.iterations} iterations each ({study.epochs} epochs); SFR+ shares them among "
        f"{study.rounds + 1} rounds; {study.planner}",
        "SAM": _sam(study, workspace) + _sam_time(study, workspace),
        "±": "standard deviation over seeds of the mean over cases; lowest case: of the means over seeds",
    }
    if any(result.trainer == ALL_LABELS for result in results):
        facts["share of the gap"] = (
            f"(trainer - {STOCK}) / ({ALL_LABELS} - {STOCK}) in Dice; interval: bootstrap over test cases and seeds"
        )
    for key in ("machine", "device", "software", "nnunet_sfr", "date"):
        values = sorted({str(record[key]) for record in records if key in record})
        facts[key] = "; ".join(values) or "not recorded"
    return facts


def _case_count(results: Sequence[TrainerResults]) -> int:
    return len(next(iter(results[0].cases.values())))


def _title(study: Study) -> str:
    """The data set; of one of the user's own, the name of its folder."""
    return Path(study.source).name if study.dataset == "nnunet" else study.dataset


def _labelled(study: Study) -> str:
    drawn = "" if study.cases_seed is None else f" (drawn with seed {study.cases_seed})"
    return f"{study.labelled} labelled{drawn}"


def _unlabelled(workspace: StudyFolders) -> int:
    return len(list((workspace.base.raw_dataset / "imagesUl").iterdir()))


def _sam(study: Study, workspace: StudyFolders) -> str:
    """As it was planned, where the plan is at hand."""
    file, planned = workspace.base.sfr_plan, {}
    if file.is_file():
        planned = read_json(file, "delete it")["configurations"][CONFIGURATION]
    adaptation = study.adaptation or planned.get("sam", {}).get("adaptation", "as planned")
    iterations = study.sam_iterations or planned.get("fine_tuning", {}).get("iterations", "planned number of")
    seeds = "one for each seed" if study.sam_per_seed else "the same for all seeds"
    return f"{study.sam} ({adaptation}), {iterations} iterations, {seeds}"


def _sam_time(study: Study, workspace: StudyFolders) -> str:
    files = [file for base in workspace.bases_with_sam(study) if (file := base.folder / "sam.json").is_file()]
    if not files:
        return ""
    seconds = statistics.fmean(read_json(file, "delete it")["seconds"] for file in files)
    return f"; its fine-tuning took {seconds / 60:.1f} min"


def _numbers(study: Study, results: Sequence[TrainerResults], counts: Mapping[str, int]) -> dict[str, Any]:
    """Metrics by trainer and seed, means over the test cases; no case names."""
    settings = {key: value for key, value in study.as_json().items() if key != "source"}
    trainers = {
        result.trainer: {metric: {str(seed): v for seed, v in result.seed_means(metric).items()} for metric in METRICS}
        for result in results
    }
    classes = {
        result.trainer: {
            name: {str(seed): value for seed, value in result.class_means("dice", name).items()}
            for name in result.classes
        }
        for result in results
        if len(result.classes) > 1
    }
    numbers = {"study": settings, "cases": dict(counts), "trainers": trainers}
    return {**numbers, "classes": classes} if classes else numbers
