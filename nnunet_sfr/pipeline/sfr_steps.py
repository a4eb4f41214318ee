"""The steps of our own commands after planning: fine-tune, cross-check, label, select."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from safetensors import SafetensorError, safe_open

from nnunet_sfr.command_lines import Command
from nnunet_sfr.data.labels_of_sam import sam_labels_folder
from nnunet_sfr.hashing import file_hash
from nnunet_sfr.json_files import read_json
from nnunet_sfr.paths import FINAL_CHECKPOINT, MANIFEST, PLANS_JSON
from nnunet_sfr.pipeline.digests import FileSet, Parts
from nnunet_sfr.pipeline.parts import (
    SAM_WEIGHTS,
    fold_part,
    label_meaning_part,
    label_meaning_part_of_earlier_versions,
    labelled_part,
    sam_part_of_earlier_versions,
    settings_name,
    settings_parts,
    some_settings_part,
    store_part,
    unlabelled_part,
    weights_part,
)
from nnunet_sfr.pipeline.project import Project
from nnunet_sfr.pipeline.step import Step
from nnunet_sfr.replacement import set_aside
from nnunet_sfr.settings import FINE_TUNING_IN_ROUNDS, RoundSettings

_NETWORK_PLAN = "nnU-Net's plan"
_SAM_LABELS = "labels of round 0"


def ensure_split(project: Project) -> None:
    """Write nnU-Net's splits file where there is none.

    Raises:
        UserError: the fold cannot exist.
    """
    options = project.options
    if options.fold == "all" or project.paths.splits_file.is_file():
        return
    from nnunet_sfr.dataset import open_dataset

    open_dataset(options.dataset_name, options.configuration, options.plans).write_split(options.fold)


class OverwritableStep(Step):
    """A step that fills a folder, by a command that knows ``--overwrite``."""

    @property
    def command_from_scratch(self) -> Command:
        return (*self.command, "--overwrite")

    def set_aside(self) -> None:
        for result in self.results:
            set_aside(result)


class FineTune(OverwritableStep):
    """Fine-tune SAM."""

    title = "fine-tune SAM"
    kind = "fine-tune"

    @property
    def command(self) -> Command:
        return self.command_lines.fine_tune(self.round_index)

    @property
    def result(self) -> Path:
        return self.project.adapter(self.round_index).parent

    @property
    def results(self) -> Sequence[Path]:
        """The folder of the SAM of every axis that slices can be cut across."""
        paths, fold = self.project.paths, self.options.fold
        further = [replace(paths, plane=axis).sam_stage(fold, self.round_index) for axis in range(3)]
        return [self.result, *further]

    def prepare(self) -> None:
        ensure_split(self.project)

    def inputs(self) -> Parts:
        project, round_index = self.project, self.round_index
        parts = {
            **settings_parts(project, "stitching", "sam", "fine_tuning"),
            **weights_part(project),
            **label_meaning_part(project),
            **fold_part(project),
            **labelled_part(project),
        }
        if round_index == 0:
            return parts
        before = FileSet.of(project.adapter(round_index - 1), project.optimizer(round_index - 1))
        return {
            **parts,
            **some_settings_part(project, "rounds", *FINE_TUNING_IN_ROUNDS),
            **unlabelled_part(project),
            "SAM of the round before": before,
            "selection": FileSet.of(project.selection(round_index)),
            **store_part(project, "the model's labels", project.store(round_index, of_model=True)),
        }

    def inputs_of_earlier_versions(self) -> Parts:
        return {
            **settings_parts(self.project, "rounds"),
            **sam_part_of_earlier_versions(self.project),
            **label_meaning_part_of_earlier_versions(self.project),
        }

    def outputs(self) -> dict[str, FileSet]:
        return {"adapter": FileSet.of(self.project.adapter(self.round_index), self.project.optimizer(self.round_index))}

    def has_taken_in(self, changed: Sequence[str]) -> bool:
        """Whether the adapter says that it changes these weights: earlier versions recorded nothing of them here."""
        adapter = self.project.adapter(self.round_index)
        if list(changed) != [SAM_WEIGHTS] or not adapter.is_file():
            return False
        try:
            with safe_open(adapter, framework="numpy") as content:
                known = (content.metadata() or {}).get("weights_sha256")
        except SafetensorError:  # sfr_finetune says what is wrong with it
            return False
        weights = weights_part(self.project)[SAM_WEIGHTS]
        return not weights.missing() and [known] == [file_hash(file) for file in weights.files]


class CrossCheck(OverwritableStep):
    """Find out how good SAM's labels are, in labelled cases that it is left without."""

    title = "cross-check SAM's labels on labelled cases"
    kind = "cross-check"
    # the result of SAM alone may be there
    complete_if_present = False

    @property
    def command(self) -> Command:
        return self.command_lines.crosscheck(with_nnunet=self.options.with_nnunet)

    @property
    def result(self) -> Path:
        return self.project.paths.crosschecks

    def inputs(self) -> Parts:
        project = self.project
        labels = sam_labels_folder(project.paths, project.label_grid())
        parts = {
            **settings_parts(project, "stitching", "sam", "fine_tuning", "pseudo_labels"),
            **weights_part(project),
            **label_meaning_part(project),
            **labelled_part(project),
            **store_part(project, _SAM_LABELS, labels or project.paths.pseudo_labels("all")),
        }
        if self.options.with_nnunet:
            parts |= {**settings_parts(project, "crosscheck"), _NETWORK_PLAN: project.network_plan()}
        return parts

    def inputs_of_earlier_versions(self) -> Parts:
        return {
            **sam_part_of_earlier_versions(self.project),
            **label_meaning_part_of_earlier_versions(self.project),
        }

    def brings_up_to_date(self, changed: Sequence[str]) -> bool:
        """Whether the trainings of SAM stay: the command replaces nnU-Net's by itself, and always estimates again."""
        return set(changed) <= {settings_name("crosscheck"), _NETWORK_PLAN, _SAM_LABELS}

    def outputs(self) -> dict[str, FileSet]:
        return {"cross-check": FileSet.of(self.project.paths.crosscheck_result)}


class PseudoLabel(OverwritableStep):
    """Let SAM label the pool."""

    title = "label the unlabelled cases with SAM"
    kind = "pseudo-label"

    @property
    def command(self) -> Command:
        return self.command_lines.pseudo_label(self.round_index)

    @property
    def result(self) -> Path:
        return self.project.store(self.round_index)

    def inputs(self) -> Parts:
        project, round_index = self.project, self.round_index
        parts = {
            **settings_parts(project, "stitching", "sam", "pseudo_labels"),
            **label_meaning_part(project),
            "fold": str(project.options.fold),
            **unlabelled_part(project),
            "adapter": FileSet.of(project.adapter(round_index)),
        }
        if round_index == 0:
            return parts
        parts |= store_part(project, "labels of the round before", project.store(round_index - 1))
        share = project.sfr_plan().get("rounds", {}).get("model_share", RoundSettings.model_share)
        if share:
            parts |= {"rounds.model_share": share}
            parts |= store_part(project, "the model's labels", project.store(round_index, of_model=True))
        return parts

    def inputs_of_earlier_versions(self) -> Parts:
        return {
            **sam_part_of_earlier_versions(self.project),
            **label_meaning_part_of_earlier_versions(self.project),
        }

    def outputs(self) -> dict[str, FileSet]:
        return store_part(self.project, "store", self.result) if self.project.is_planned() else {}


class ModelLabels(PseudoLabel):
    """Let the model of the round before label the pool, and say how sure it is."""

    title = "label the unlabelled cases with the trained model"
    kind = "label"

    @property
    def _trainer(self) -> str:
        return self.options.trainer(self.round_index - 1)

    @property
    def command(self) -> Command:
        return self.command_lines.pseudo_label(self.round_index, self._trainer)

    @property
    def result(self) -> Path:
        return self.project.store(self.round_index, of_model=True)

    def inputs(self) -> Parts:
        project, round_index = self.project, self.round_index
        model = project.training(self._trainer)
        before = project.store(round_index - 1, of_model=round_index > 1)
        return {
            **settings_parts(project, "pseudo_labels"),
            **label_meaning_part(project),
            "fold": str(project.options.fold),
            **unlabelled_part(project),
            "model": FileSet.of(model / FINAL_CHECKPOINT, model.parent / PLANS_JSON),
            **store_part(project, "labels of the round before", before),
            **store_part(project, _SAM_LABELS, project.store(0)),
        }


class Select(Step):
    """Select the cases of high confidence."""

    title = "select cases of high confidence"
    kind = "select"

    @property
    def command(self) -> Command:
        return self.command_lines.select(self.round_index, *self.options.selection)

    @property
    def result(self) -> Path:
        return self.project.selection(self.round_index)

    def inputs(self) -> Parts:
        project, round_index = self.project, self.round_index
        return {
            **settings_parts(project),
            **some_settings_part(project, "rounds", "confidence", "confidence_of", "threshold", "high_fraction"),
            "rule": self.options.selection or None,
            "fold": str(project.options.fold),
            **store_part(project, "the model's labels", project.store(round_index, of_model=True)),
            **store_part(project, "SAM's labels of the round before", project.store(round_index - 1)),
        }

    def inputs_of_earlier_versions(self) -> Parts:
        return settings_parts(self.project, "rounds")

    def outputs(self) -> dict[str, FileSet]:
        return {"selection": FileSet.of(self.result)}

    def set_aside(self) -> None:
        set_aside(self.result)

    def found_complete(self) -> bool:
        """Whether somebody chose by hand among the labels that there are."""
        if not self.result.is_file():
            return False
        manifest = read_json(self.project.store(self.round_index, of_model=True) / MANIFEST, "run sfr_pseudolabel")
        return read_json(self.result, "delete it").get("model") == manifest.get("made_by")
