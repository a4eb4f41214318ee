"""Which steps a run has, in their order, and the commands that they stand for."""

from __future__ import annotations

from nnunet_sfr.command_lines import AUTO, shell_text
from nnunet_sfr.pipeline.nnunet_steps import Predict, Train, Validate
from nnunet_sfr.pipeline.options import RunOptions
from nnunet_sfr.pipeline.plan_step import Plan
from nnunet_sfr.pipeline.project import Project
from nnunet_sfr.pipeline.sfr_steps import CrossCheck, FineTune, ModelLabels, PseudoLabel, Select
from nnunet_sfr.pipeline.step import Step


def steps_of(options: RunOptions) -> list[Step]:
    """Round 0 is SFR; every round of SFR+ lets model and SAM train each other once more."""
    project = Project(options)
    steps: list[Step] = [Plan(project), FineTune(project), PseudoLabel(project)]
    if options.crosscheck:
        steps.append(CrossCheck(project))
    steps.append(Train(project))
    for round_index in range(1, options.rounds + 1):
        steps += [kind(project, round_index) for kind in (ModelLabels, Select, FineTune, PseudoLabel, Train)]
    steps.append(Validate(project, options.rounds))
    if options.images is not None:
        steps.append(Predict(project, options.rounds))
    return steps


def shell_commands(options: RunOptions) -> str:
    """The commands of the whole run, as text that a shell can run.

    nnUNetv2_train validates at its end, so the step of its own is not among them.
    """
    lines = []
    if options.device == AUTO:
        lines.append("# nnU-Net's commands take CUDA; where there is none, print again with -device cpu")
    for step in steps_of(options):
        if not isinstance(step, Validate):
            lines += [f"# {step.name}: {step.title}", shell_text(step.command)]
    return "\n".join(lines)
