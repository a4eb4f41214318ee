"""The steps of our own commands: plan, fine-tune, label, select."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError, safe_open

from nnunet_sfr.command_lines import Command
from nnunet_sfr.errors import UserError
from nnunet_sfr.hashing import file_hash
from nnunet_sfr.json_files import read_json
from nnunet_sfr.nnunet_json import read_fingerprint
from nnunet_sfr.paths import FINAL_CHECKPOINT, MANIFEST, PLANS_JSON
from nnunet_sfr.pipeline.digests import FileSet, Parts
from nnunet_sfr.pipeline.options import DEFAULT_PLANNER, PLANS_OF_PLANNERS
from nnunet_sfr.pipeline.parts import (
    SAM_WEIGHTS,
    fold_part,
    label_meaning_part,
    labelled_part,
    settings_name,
    settings_parts,
    store_part,
    unlabelled_part,
    weights_part,
)
from nnunet_sfr.pipeline.project import Project, visible_files
from nnunet_sfr.pipeline.step import Step
from nnunet_sfr.replacement import set_aside

if TYPE_CHECKING:  # it comes with nnU-Net, which takes ten seconds to import
    from nnunet_sfr.data.raw_cases import RawDataset


_NETWORK_PLAN = "nnU-Net's plan"
_RAW_PARTS = ("raw dataset.json", "images of labelled cases", "labels", "images of unlabelled cases")


def ensure_split(project: Project) -> None:
    """Write nnU-Net's splits file where there is none.

    Raises:
        UserError: the fold cannot exist.
    """
    try:
        project.split()
    except (OSError, ValueError, LookupError, TypeError):
        from nnunet_sfr.dataset import open_dataset

        options = project.options
        open_dataset(options.dataset_name, options.configuration, options.plans).write_split(options.fold)


class Plan(Step):
    """Plan and preprocess."""

    title = "plan and preprocess"
    kind = "plan"
    # part of the cases may be there
    complete_if_present = False

    @property
    def command(self) -> Command:
        options = self.options
        planner = self._planner
        command: list[str] = []
        if planner != DEFAULT_PLANNER:
            command += ["-pl", planner]
        if options.plans != PLANS_OF_PLANNERS.get(planner):
            command += ["-p", options.plans]
        if options.target_spacing is not None:
            command += ["-overwrite_target_spacing", *(f"{length:g}" for length in options.target_spacing)]
        if options.sam is not None:
            command += ["-sam", options.sam]
        if options.adaptation is not None:
            command += ["-adaptation", options.adaptation]
        if options.checkpoint is not None:
            command += ["-checkpoint", options.checkpoint]
        return self.command_lines.plan(*command)

    @property
    def _planner(self) -> str:
        """The one that was asked for, or that made the plan which is there, or whose plans have this name."""
        if self.options.planner is not None:
            return self.options.planner
        by_name = {plans: planner for planner, plans in PLANS_OF_PLANNERS.items()}
        return self._planner_used or by_name.get(self.options.plans, DEFAULT_PLANNER)

    @property
    def _planner_used(self) -> str | None:
        try:
            plans = read_json(self.project.paths.plans_file, "", {"experiment_planner_used": str})
        except UserError:
            return None
        return str(plans["experiment_planner_used"])

    @property
    def result(self) -> Path:
        return self.project.paths.plans_file

    def inputs(self) -> Parts:
        options = self.options
        return {
            "-pl": options.planner,
            "-overwrite_target_spacing": options.target_spacing,
            "-sam": options.sam,
            "-adaptation": options.adaptation,
            "-checkpoint": options.checkpoint and str(Path(options.checkpoint).expanduser().resolve()),
            **self._raw_parts(),
        }

    def _raw_parts(self) -> Parts:
        project = self.project
        if project.is_planned() and not project.raw_is_here():
            return dict.fromkeys(_RAW_PARTS)
        return {
            _RAW_PARTS[0]: project.raw_dataset_json(),
            _RAW_PARTS[1]: FileSet(tuple(project.raw_images())),
            _RAW_PARTS[2]: FileSet(tuple(project.raw_labels())),
            _RAW_PARTS[3]: FileSet(tuple(project.raw_unlabelled())),
        }

    def outputs(self) -> dict[str, FileSet]:
        """The cases, but no plan: that may be edited."""
        project = self.project
        if not project.is_planned():
            return {}
        return {**labelled_part(project), **unlabelled_part(project)}

    def after_kill(self) -> None:
        """Remove a plan that nnU-Net was killed over: its planner reads the one that is there."""
        with contextlib.suppress(FileNotFoundError):
            try:
                json.loads(self.result.read_text(encoding="utf-8"))
            except ValueError:
                self.result.unlink()

    def found_complete(self) -> bool:
        """Whether sfr_plan_and_preprocess has been here and no file has changed since.

        Running it again would lose edits of nnU-Net's plan.
        """
        options = self.options
        asked = (options.target_spacing, options.sam, options.adaptation, options.checkpoint)
        if any(value is not None for value in asked):
            return False
        if not self.project.is_planned() or options.planner not in (None, self._planner_used):
            return False
        if not self.project.raw_is_here():
            return all(self.project.properties(unlabelled=unlabelled) for unlabelled in (False, True))
        from nnunet_sfr.data.raw_cases import list_cases
        from nnunet_sfr.planning.fingerprint import stamps

        raw = list_cases(self.project.paths.raw)
        fingerprint = read_fingerprint(self.project.paths.fingerprint_file, "delete it")
        same = raw.is_that_of(stamps(fingerprint))
        raw.hashes.save()  # so that copied files are read once
        return same and self._has_cases(raw)

    def has_taken_in(self, changed: Sequence[str]) -> bool:
        """Whether sfr_add_labels has changed the raw data, and no planning came since.

        It keeps the plan, which would be another one with more labelled cases, and preprocesses the new ones by it.
        """
        if not self.project.is_planned() or not set(changed) <= set(_RAW_PARTS):
            return False
        from nnunet_sfr.data.raw_cases import list_cases
        from nnunet_sfr.planning.fingerprint import knows_added_labels

        raw = list_cases(self.project.paths.raw)
        taken_in = knows_added_labels(self.project.paths.fingerprint_file, raw)
        raw.hashes.save()
        return taken_in and self._has_cases(raw)

    def _has_cases(self, raw: RawDataset) -> bool:
        """Whether the raw cases, and no others, are preprocessed."""
        for cases, unlabelled in ((raw.labelled, False), (raw.unlabelled, True)):
            there = {file.name for file in visible_files(self.project.cases_folder(unlabelled=unlabelled))}
            # of each case the first and the last file to be put in place
            wanted = {f"{case.identifier}{ending}" for case in cases for ending in (".pkl", ".b2nd")}
            if not wanted <= there or len(there) != 3 * len(cases):
                return False
        return True


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
            **settings_parts(project, "rounds"),
            **unlabelled_part(project),
            "SAM of the round before": before,
            "selection": FileSet.of(project.selection(round_index)),
            **store_part(project, "the model's labels", project.store(round_index, of_model=True)),
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
        parts = {
            **settings_parts(project, "stitching", "sam", "fine_tuning", "pseudo_labels"),
            **weights_part(project),
            **label_meaning_part(project),
            **labelled_part(project),
            **store_part(project, "labels of round 0", project.store(0)),
        }
        if self.options.with_nnunet:
            parts |= {**settings_parts(project, "crosscheck"), _NETWORK_PLAN: project.network_plan()}
        return parts

    def brings_up_to_date(self, changed: Sequence[str]) -> bool:
        """Whether only nnU-Net's trainings are others, which the command replaces by itself; SAM's part stays."""
        return set(changed) <= {settings_name("crosscheck"), _NETWORK_PLAN}

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
        share = project.sfr_plan().get("rounds", {}).get("model_share", 0)
        if share:
            parts |= {"rounds.model_share": share}
            parts |= store_part(project, "the model's labels", project.store(round_index, of_model=True))
        return parts

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
            **store_part(project, "labels of round 0", project.store(0)),
        }


class Select(Step):
    """Tell sure cases from unsure ones."""

    title = "tell sure cases from unsure ones"
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
            **settings_parts(project, "rounds"),
            "rule": self.options.selection or None,
            "fold": str(project.options.fold),
            **store_part(project, "the model's labels", project.store(round_index, of_model=True)),
            **store_part(project, "SAM's labels of the round before", project.store(round_index - 1)),
        }

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
