"""The steps of nnU-Net's commands: train, validate, predict."""

from __future__ import annotations

from pathlib import Path

from nnunet_sfr.command_lines import Command
from nnunet_sfr.paths import (
    CHECKPOINTS,
    FINAL_CHECKPOINT,
    PREDICTION_ARGUMENTS,
    TEACHER_CHECKPOINT,
    VALIDATION,
    VALIDATION_SUMMARY,
)
from nnunet_sfr.pipeline.digests import FileSet, Parts
from nnunet_sfr.pipeline.empty_labels import require_labels
from nnunet_sfr.pipeline.parts import (
    fold_part,
    label_meaning_part,
    label_meaning_part_of_earlier_versions,
    labelled_part,
    settings_parts,
    store_part,
    training_settings_part,
    unlabelled_part,
)
from nnunet_sfr.pipeline.state import StepRecord
from nnunet_sfr.pipeline.step import Step
from nnunet_sfr.pipeline.unrecorded_training import require_same_training
from nnunet_sfr.replacement import set_aside


class NNUNetStep(Step):
    """A step with a model."""

    @property
    def trainer(self) -> str:
        return self.options.trainer(self.round_index)

    @property
    def training(self) -> Path:
        """Folder of the model's fold."""
        return self.project.training(self.trainer)


class Train(NNUNetStep):
    """Train nnU-Net's network; validates it, too."""

    title = "train nnU-Net"
    kind = "train"

    @property
    def command(self) -> Command:
        return self.command_lines.train(self.trainer)

    @property
    def command_continued(self) -> Command:
        there = any((self.training / name).is_file() for name in CHECKPOINTS)
        return (*self.command, "--c") if there else self.command

    @property
    def result(self) -> Path:
        return self.training

    def inputs(self) -> Parts:
        project, round_index = self.project, self.round_index
        parts = {
            **settings_parts(project, "pseudo_labels"),
            **training_settings_part(project, "retraining"),
            "trainer": self.trainer,
            "nnU-Net's plan": project.network_plan(),
            **label_meaning_part(project),
            **fold_part(project),
            **labelled_part(project),
            **unlabelled_part(project),
            **store_part(project, "pseudo-labels", project.store(round_index)),
        }
        if round_index == 0:
            return parts
        previous = project.training(self.options.trainer(round_index - 1)) / FINAL_CHECKPOINT
        return {
            **parts,
            **training_settings_part(project, "rounds"),
            "selection": FileSet.of(project.selection(round_index)),
            "training of the round before": FileSet.of(previous),
        }

    def inputs_of_earlier_versions(self) -> Parts:
        return {
            **settings_parts(self.project, "retraining", "rounds"),
            **label_meaning_part_of_earlier_versions(self.project),
        }

    def check_inputs(self) -> None:
        """Refuse pseudo-labels that are mostly empty."""
        cases = [file.stem for file in self.project.properties(unlabelled=True)]
        require_labels(self.project, self.project.store(self.round_index), cases)

    def outputs(self) -> dict[str, FileSet]:
        return {
            "student": FileSet.of(self.training / FINAL_CHECKPOINT),
            "teacher": FileSet.of(self.training / TEACHER_CHECKPOINT),
        }

    def set_aside(self) -> None:
        """Checkpoints, which a killed and resumed training would continue from, and the validation."""
        names = (*CHECKPOINTS, TEACHER_CHECKPOINT, VALIDATION)
        set_aside(self.training, [self.training / name for name in names])

    def found_complete(self) -> bool:
        """Never: ``--c`` finishes what there is, if it is of the same data and settings."""
        if any((self.training / name).is_file() for name in (*CHECKPOINTS, TEACHER_CHECKPOINT)):
            require_same_training(self.training, self.project, self.trainer, self.inputs())
        return False


class Validate(NNUNetStep):
    """nnU-Net's validation of the last model, where its training was interrupted after the last checkpoint."""

    title = "validate the model"
    kind = "validate"
    complete_if_present = False
    ignores_records = True

    @property
    def name(self) -> str:
        return self.kind

    @property
    def command(self) -> Command:
        return self.command_lines.validate(self.trainer)

    @property
    def result(self) -> Path:
        return self.training / VALIDATION

    def inputs(self) -> Parts:
        return {"student": FileSet.of(self.training / FINAL_CHECKPOINT)}

    def outputs(self) -> dict[str, FileSet]:
        return {"summary": FileSet.of(self.result / VALIDATION_SUMMARY)}

    def found_complete(self) -> bool:
        """Whether the training got to its end, validation included."""
        summary, student = self.result / VALIDATION_SUMMARY, self.training / FINAL_CHECKPOINT
        return summary.is_file() and summary.stat().st_mtime_ns >= student.stat().st_mtime_ns


class Predict(NNUNetStep):
    """Predict the user's images."""

    title = "predict the images"
    kind = "predict"
    # nnU-Net writes predictions in place, so that half a file looks like a whole one
    complete_if_present = False
    may_be_edited = True

    @property
    def name(self) -> str:
        return self.kind

    @property
    def command(self) -> Command:
        assert self.options.images is not None
        assert self.options.predictions is not None
        return self.command_lines.predict(self.trainer, self.options.images, self.options.predictions)

    @property
    def result(self) -> Path:
        assert self.options.predictions is not None
        return self.options.predictions.resolve()

    def inputs(self) -> Parts:
        return {
            "trainer": self.trainer,
            "fold": str(self.options.fold),
            "student": FileSet.of(self.training / FINAL_CHECKPOINT),
            "images": FileSet(tuple(self.project.input_images())),
        }

    def outputs(self) -> dict[str, FileSet]:
        return {"predictions": FileSet(tuple(self.project.predicted_files()))} if self.project.is_planned() else {}

    def was_replaced(self, record: StepRecord) -> bool:
        """Whether nnU-Net has predicted into the folder since: another model, of other plans or another data set."""
        arguments = self.result / PREDICTION_ARGUMENTS
        return arguments.is_file() and record.is_older_than(arguments)
