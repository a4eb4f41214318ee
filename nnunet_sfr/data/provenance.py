"""What made the labels of a pseudo-label store: one typed record, with one constructor for each source."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nnunet_sfr.hashing import file_hash, json_hash
from nnunet_sfr.json_files import OBJECT, Shape, as_json
from nnunet_sfr.paths import PLANS_JSON, Fold
from nnunet_sfr.plans import SFRConfiguration, complete_sections


@dataclass(frozen=True)
class SourceKind:
    """One way to fill a store.

    Args:
        label: in a word or two, for people.
        refill: the command that fills the store again, with ``{round}`` and ``{trainer}`` of the store.
    """

    label: str
    refill: str


SAM, MODEL, IMAGES, RETRAINING = "sam", "model", "images", "retraining"

SOURCES: Mapping[str, SourceKind] = {
    SAM: SourceKind("SAM", "sfr_finetune{round} --overwrite, then sfr_pseudolabel{round} --overwrite"),
    MODEL: SourceKind("trained model", "sfr_pseudolabel --from-model <model> --overwrite"),
    IMAGES: SourceKind("label maps", "sfr_pseudolabel --from-images <folder> --overwrite"),
    RETRAINING: SourceKind("re-trained model", "sfr_pseudolabel{round} -tr {trainer} --overwrite"),
}
"""By :attr:`Provenance.source`. Any other source is a trainer that labels while it trains, by its name."""

PROVENANCE_SHAPE: Shape = {
    "source": str,
    "fold?": int | str | None,
    "round?": int | None,
    **dict.fromkeys(("model?", "trainer?", "plans_sha256?", "weights_sha256?", "adapter?"), str | None),
    "adapter_sha256?": str | None,
    "checkpoints?": {...: [str]},
    "epoch?": int | None,
    **dict.fromkeys(("stitching?", "sam?", "pseudo_labels?"), OBJECT),
}
"""Of :meth:`Provenance.to_json`, for :func:`nnunet_sfr.json_files.read_json`."""

FURTHER_SOURCES: Mapping[str, str] = {
    "high_confidence": "In the cases of high confidence",
    "first_labels": "Before it labelled the cases itself",
}
"""Where labels of a second source are learned from: key in JSON, and what to call it in a sentence."""

_SECTIONS = ("stitching", "sam", "pseudo_labels")
"""Sections of the SFR plan that labels can depend on."""


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """What made the labels of a store; make one with the constructor of its source.

    Args:
        source: a key of :data:`SOURCES`, or the name of a trainer.
        fold: whose training reads the labels.
        round_index: 0, or the round of SFR+.
        trainer: of the network that predicted.
        model: name of its model folder.
        checkpoints: of the network, file name and SHA-256 by name of the fold's folder.
        plans_sha256: of the model's ``plans.json``.
        epoch: after which the network of a running training predicted.
        weights_sha256: of that network.
        adapter: file name of SAM's adapter.
        adapter_sha256: of that file; of the adapters of several axes, with commas between them.
        settings: sections of the SFR plan that the labels depend on, by name.
        others: entries that another version wrote; they count in comparisons.
    """

    source: str
    fold: Fold | None = None
    round_index: int | None = field(default=None, metadata={"key": "round"})
    model: str | None = None
    trainer: str | None = None
    checkpoints: Mapping[str, Sequence[str]] | None = None
    plans_sha256: str | None = None
    epoch: int | None = None
    weights_sha256: str | None = None
    adapter: str | None = None
    adapter_sha256: str | None = None
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    others: Mapping[str, Any] = field(default_factory=dict)

    # --- one constructor for each source ---

    @classmethod
    def of_sam(
        cls,
        adapters: Sequence[Path],
        settings: SFRConfiguration,
        *,
        fold: Fold,
        round_index: int,
        fused_with: tuple[float, Provenance] | None = None,
    ) -> Provenance:
        """Labels of a fine-tuned SAM, or of several whose probabilities are averaged.

        Args:
            adapters: the files that fine-tuning left, one for each axis in ``stitching.slice_axes``.
            settings: the SFR plan.
            fold: whose SAM.
            round_index: 0, or the round of SFR+.
            fused_with: share of another source, and what made its labels.
        """
        others = {} if fused_with is None else {"fused_with": [fused_with[0], fused_with[1].fingerprint]}
        return cls(
            source=SAM,
            fold=fold,
            round_index=round_index,
            adapter=adapters[0].name,
            adapter_sha256=",".join(file_hash(adapter) for adapter in adapters),
            settings=_sections(settings, "stitching", "sam", "pseudo_labels"),
            others=others,
        )

    @classmethod
    def of_model(
        cls, checkpoints: Sequence[Path], settings: SFRConfiguration, *, fold: Fold, trainer: str
    ) -> Provenance:
        """Labels of a trained nnU-Net model of any origin.

        Args:
            checkpoints: ``<model folder>/fold_<f>/<file>``, one for each fold that is averaged.
            settings: the SFR plan.
            fold: whose training reads the labels.
            trainer: that trained the model.
        """
        return cls(
            source=MODEL,
            fold=fold,
            round_index=0,
            **_model(checkpoints, trainer),
            settings=_sections(settings, "pseudo_labels"),
        )

    @classmethod
    def of_retraining(
        cls, checkpoint: Path, settings: SFRConfiguration, *, fold: Fold, round_index: int, trainer: str
    ) -> Provenance:
        """Labels of the re-trained model before a round of SFR+.

        Args:
            checkpoint: ``<model folder>/fold_<f>/<file>``.
            settings: the SFR plan.
            fold: of the model.
            round_index: the round that is about to begin, from 1.
            trainer: that trained the model.
        """
        return cls(
            source=RETRAINING,
            fold=fold,
            round_index=round_index,
            model=checkpoint.parent.parent.name,
            **_model([checkpoint], trainer),
            settings=_sections(settings, "pseudo_labels"),
        )

    @classmethod
    def of_images(cls, *, fold: Fold) -> Provenance:
        """Labels from label maps; the records of the cases say from which files."""
        return cls(source=IMAGES, fold=fold, round_index=0)

    @classmethod
    def of_training(
        cls,
        trainer: str,
        settings: SFRConfiguration,
        *,
        fold: Fold,
        round_index: int,
        epoch: int,
        weights_sha256: str,
        measured: Sequence[str] = (),
    ) -> Provenance:
        """Labels of the network of a training that is under way.

        Args:
            trainer: its class name, which is the source.
            settings: the SFR plan.
            fold: of the training.
            round_index: how often it has labelled the pool, from 1.
            epoch: that is about to begin.
            weights_sha256: :func:`nnunet_sfr.hashing.weights_hash` of the network.
            measured: entries of the confidence record that were asked for beside those that every record has.
        """
        return cls(
            source=trainer,
            fold=fold,
            round_index=round_index,
            epoch=epoch,
            weights_sha256=weights_sha256,
            settings=_sections(settings, "pseudo_labels"),
            others={"measured": list(measured)} if measured else {},
        )

    # --- labels of two sources ---

    def beside(self, **further: Provenance) -> Provenance:
        """What a training learns from that has labels of another source too.

        Args:
            further: what made those, by a key of :data:`FURTHER_SOURCES`.
        """
        others = {key: made_by.to_json() for key, made_by in further.items()}
        return dataclasses.replace(self, others={**self.others, **others})

    @property
    def further(self) -> dict[str, Provenance]:
        """What :meth:`beside` was given."""
        return {key: Provenance.from_json(self.others[key]) for key in FURTHER_SOURCES if key in self.others}

    # --- as JSON ---

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Provenance:
        """Inverse of :meth:`to_json`; stores of version 0.1 have the same entries.

        Args:
            content: of the shape :data:`PROVENANCE_SHAPE`.
        """
        values = {name: content[key] for name, key in _KEYS.items() if content.get(key) is not None}
        settings = {section: content[section] for section in _SECTIONS if isinstance(content.get(section), Mapping)}
        known = {*(_KEYS[name] for name in values), *settings}
        others = {key: value for key, value in content.items() if key not in known}
        return cls(**values, settings=settings, others=others)

    def to_json(self) -> dict[str, Any]:
        """``made_by`` of a manifest, in JSON's own types."""
        values = {key: getattr(self, name) for name, key in _KEYS.items()}
        known = {key: value for key, value in values.items() if value is not None}
        return as_json({**known, **self.settings, **self.others})

    # --- comparisons ---

    @property
    def fingerprint(self) -> str:
        """SHA-256 of everything in the record, by which the record of a case names what made its labels."""
        return json_hash(self.to_json())

    def differences(self, other: Provenance) -> list[str]:
        """Names of the entries in which two records differ; of another source everything else is a consequence.

        A setting that an earlier version did not know has its default. Where SAM's weights lie does not count: the hash
        of the adapter stands for them.
        """
        if self.source != other.source:
            return ["source"]
        ours, theirs = ({**record.to_json(), **_compared(record.settings)} for record in (self, other))
        return sorted(key for key in {*ours, *theirs} if ours.get(key) != theirs.get(key))

    # --- for people ---

    @property
    def is_sam(self) -> bool:
        return self.source == SAM

    @property
    def label(self) -> str:
        """Who made the labels, in a word or two."""
        return SOURCES[self.source].label if self.source in SOURCES else self.source

    @property
    def refill(self) -> str:
        """The command that fills the store again from the beginning."""
        if self.source not in SOURCES:
            return f"nnUNetv2_train -tr {self.source}"
        later = f" --round {self.round_index}" if self.round_index else ""
        return SOURCES[self.source].refill.format(round=later, trainer=self.trainer or "<trainer>")


_KEYS = {
    entry.name: entry.metadata.get("key", entry.name)
    for entry in dataclasses.fields(Provenance)
    if entry.name not in ("settings", "others")
}
"""Name of an entry in JSON, by field."""


def _compared(settings: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Sections with the defaults of settings that are not there, as far as they count in comparisons."""
    sections = dict(complete_sections(settings))
    if "sam" in sections:
        sections["sam"] = {name: value for name, value in sections["sam"].items() if name != "checkpoint"}
    return sections


def _sections(settings: SFRConfiguration, *names: str) -> dict[str, Any]:
    every = settings.to_dict()
    return {name: every[name] for name in names}


def _model(checkpoints: Sequence[Path], trainer: str) -> dict[str, Any]:
    """What the predictions of a model depend on."""
    return {
        "trainer": trainer,
        "checkpoints": {file.parent.name: [file.name, file_hash(file)] for file in checkpoints},
        "plans_sha256": file_hash(checkpoints[0].parent.parent / PLANS_JSON),
    }
