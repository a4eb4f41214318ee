"""The step that plans and preprocesses, and when what others planned counts as done."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nnunet_sfr.command_lines import Command
from nnunet_sfr.data.preprocessed_files import ARRAY_ENDINGS, CASE_ENDINGS
from nnunet_sfr.nnunet_json import read_fingerprint
from nnunet_sfr.pipeline.digests import FileSet, Parts
from nnunet_sfr.pipeline.parts import labelled_part, unlabelled_part
from nnunet_sfr.pipeline.project import visible_files
from nnunet_sfr.pipeline.step import Step
from nnunet_sfr.planner_names import DEFAULT_PLANNER, PLANS_OF_PLANNERS, planner_of_plans, planner_used

if TYPE_CHECKING:  # it comes with nnU-Net, which takes ten seconds to import
    from nnunet_sfr.data.raw_cases import RawDataset

_RAW_PARTS = ("raw dataset.json", "images of labelled cases", "labels", "images of unlabelled cases")


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
        # what is asked for must be said: planning would keep the planner of the plans that -p names
        if options.planner is not None or planner != DEFAULT_PLANNER:
            command += ["-pl", planner]
        if options.plans != PLANS_OF_PLANNERS.get(planner):
            command += ["-p", options.plans]
        if options.target_spacing is not None:
            lengths = [repr(length).removesuffix(".0") for length in options.target_spacing]
            command += ["-overwrite_target_spacing", *lengths]
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
        return planner_of_plans(self.project.paths.plans_file)

    @property
    def result(self) -> Path:
        return self.project.paths.plans_file

    def inputs(self) -> Parts:
        options = self.options
        return {
            "-pl": options.planner,
            "-overwrite_target_spacing": options.target_spacing,
            **self._sam_parts(),
            **self._raw_parts(),
        }

    def _sam_parts(self) -> Parts:
        """What is asked for of SAM and the SFR plan does not have."""
        options = self.options
        checkpoint = options.checkpoint and str(Path(options.checkpoint).expanduser().resolve())
        wanted = {"model": options.sam, "adaptation": options.adaptation, "checkpoint": checkpoint}
        planned = self.project.sfr_plan().get("sam", {}) if self.project.is_planned() else {}
        return {
            option: None if wanted[key] == planned.get(key) else wanted[key]
            for option, key in (("-sam", "model"), ("-adaptation", "adaptation"), ("-checkpoint", "checkpoint"))
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
        """The cases, but no plan: that may be edited, as long as it has the SAM that is asked for.

        A case is known by its properties; its arrays must be there.
        """
        project = self.project
        # a record of the same options may be older than a planning by hand with others
        if not project.is_planned() or any(self._sam_parts().values()):
            return {}
        cases = [*project.properties(unlabelled=False), *project.properties(unlabelled=True)]
        arrays = (case.with_name(f"{case.stem}{ending}") for case in cases for ending in ARRAY_ENDINGS)
        if not all(array.is_file() for array in arrays):
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
        """Whether sfr_plan_and_preprocess has been here and no file has changed since."""
        options = self.options
        if any(value is not None for value in (options.target_spacing, *self._sam_parts().values())):
            return False
        if not self.project.is_planned() or options.planner not in (None, planner_used(self.project.paths.plans_file)):
            return False
        if not self.project.raw_is_here():
            return all(self.project.properties(unlabelled=unlabelled) for unlabelled in (False, True))
        from nnunet_sfr.data.raw_cases import list_cases
        from nnunet_sfr.planning.fingerprint import is_outdated, stamps

        raw = list_cases(self.project.paths.raw)
        fingerprint = read_fingerprint(self.project.paths.fingerprint_file, "delete it")
        same = raw.is_that_of(stamps(fingerprint))
        raw.hashes.save()  # so that copied files are read once
        return same and not is_outdated(fingerprint, options.plans) and self._has_cases(raw)

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
            wanted = {f"{case.identifier}{ending}" for case in cases for ending in (CASE_ENDINGS[0], CASE_ENDINGS[-1])}
            if not wanted <= there or len(there) != len(CASE_ENDINGS) * len(cases):
                return False
        return True
