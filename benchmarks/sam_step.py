"""What the parts of the SAM stage cost on this machine's processor: ``python benchmarks/sam_step.py``.

Measures CPU time, wall time and peak memory of each subject in turns with what it is compared with, in one run.
benchmarks/README.md says how.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

# Python puts the folder of a script on its path, and this script needs the one above it.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.options import add_report_options
from nnunet_sfr.entry_points.command_line import NOTHING_WRITTEN, positive_number, run
from nnunet_sfr.errors import UserError
from nnunet_sfr.sam_models import MODELS

README = Path(__file__).with_name("README.md")
SECTION = "sam_step"
MIB = 2**20
FINETUNE_LIMIT, PSEUDOLABEL_LIMIT, MEMORY_LIMIT = 240.0, 2.0, 1.05
"""Seconds on two cores, seconds for each case with its mirrored images, and the ratio of peaks."""

Step = Callable[[], object]


@dataclass(frozen=True, kw_only=True)
class Subject:
    """One thing that is measured.

    Args:
        name: in the table.
        ours: builds what is measured; each call of what it gives is one step.
        reference: the same for what it is compared with, or None for a duration that stands for itself.
        limit: highest ratio of CPU time that is allowed; without a reference, highest wall time in seconds.
        repeated: False for what takes minutes: it runs once, without warm-up, and its memory is not measured.
    """

    name: str
    ours: Callable[[], Step]
    reference: Callable[[], Step] | None = None
    limit: float | None = None
    repeated: bool = True

    @property
    def sides(self) -> list[Callable[[], Step]]:
        """The reference, if there is one, and ours."""
        return [self.ours] if self.reference is None else [self.reference, self.ours]


# Importing torch takes seconds, which -h should not: every function below imports what it needs.


def _published_encoder(size: int) -> Step:
    """LiteMedSAM's encoder as its authors run it: float32, batch norm by itself, attention step by step."""
    import torch

    from nnunet_sfr.sam_stage.backbones.tiny_vit import blocks

    encoder = _encoder(size).eval()
    for block in blocks(encoder):
        cast(Any, block).attn.fused_attn = False
    image = torch.rand(1, 3, size, size)
    return partial(torch.no_grad()(encoder), image)


def _fast_encoder(size: int) -> Step:
    import torch

    from nnunet_sfr.sam_stage.backbones import find_backbone

    fast = find_backbone(MODELS["lite_medsam"]).for_inference(_encoder(size))
    return partial(fast, torch.rand(1, 3, size, size))


def _encoder(size: int) -> Any:
    from nnunet_sfr.sam_stage.backbones import find_backbone

    model = MODELS["lite_medsam"]
    return find_backbone(model).build(model, size, 3)  # the time does not depend on the weights


def _decoder_step(*, autocast: bool) -> Step:
    """An optimiser step of the mask decoder on four embedded views of 256²."""
    import torch

    from nnunet_sfr.devices import low_precision
    from nnunet_sfr.sam_stage.adaptation import adapt
    from nnunet_sfr.sam_stage.losses import stitched_segmentation_loss
    from nnunet_sfr.sam_stage.sam import build_sam
    from nnunet_sfr.settings import SAMSettings

    sam = adapt(build_sam("lite_medsam", input_size=256, in_channels=1, num_classes=2), SAMSettings())
    optimizer = torch.optim.AdamW([parameter for parameter in sam.parameters() if parameter.requires_grad])
    embeddings, target = torch.randn(4, *sam.embedding_shape), torch.randint(0, 2, (4, 256, 256))
    dtype = low_precision(torch.device("cpu")) if autocast else None

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=dtype, enabled=dtype is not None):
            logits = sam.decode(embeddings)
        loss, _ = stitched_segmentation_loss(logits, target, ignore_index=-1, cross_entropy_weight=0.5, dice_weight=0.5)
        loss.backward()
        optimizer.step()

    return step


def _vit_b(*, ours: bool) -> Step:
    """Embed a canvas of 1024² with SAM's ViT-B, ours or segment-anything's."""
    import segment_anything
    import torch

    from nnunet_sfr.sam_stage.backbones import find_backbone

    image = torch.rand(1, 3, 1024, 1024)
    if not ours:
        return partial(torch.no_grad()(segment_anything.sam_model_registry["vit_b"]().image_encoder.eval()), image)
    backbone = find_backbone(MODELS["vit_b"])
    return partial(backbone.for_inference(backbone.build(MODELS["vit_b"], 1024, 3)), image)


def _vit_attention(*, ours: bool) -> Step:
    """Forward and backward pass of a global attention of ViT-B on 32 x 32 tokens, ours or segment-anything's."""
    import torch
    from segment_anything.modeling.image_encoder import Attention

    from nnunet_sfr.sam_stage.layers.relative_attention import RelativeAttention

    attention = Attention(768, num_heads=12, use_rel_pos=True, input_size=(32, 32))
    module = RelativeAttention(attention) if ours else attention
    tokens = torch.randn(1, 32, 32, 768)

    def step() -> None:
        module(tokens).square().mean().backward()

    return step


SUBJECTS: Mapping[str, Subject] = {
    "encoder_256": Subject(
        name="embed a canvas of 256²",
        reference=partial(_published_encoder, 256),
        ours=partial(_fast_encoder, 256),
        limit=0.4,
    ),
    "encoder_512": Subject(
        name="embed a canvas of 512²", reference=partial(_published_encoder, 512), ours=partial(_fast_encoder, 512)
    ),
    "decoder_step": Subject(
        name="train the decoder on 4 embedded views",
        reference=partial(_decoder_step, autocast=False),
        ours=partial(_decoder_step, autocast=True),
    ),
    "vit_attention": Subject(
        name="train a global attention of ViT-B, 32² tokens",
        reference=partial(_vit_attention, ours=False),
        ours=partial(_vit_attention, ours=True),
    ),
    "vit_b_1024": Subject(
        name="embed a canvas of 1024² with ViT-B",
        reference=partial(_vit_b, ours=False),
        ours=partial(_vit_b, ours=True),
        repeated=False,
    ),
}
"""What is measured. A new measurement is one entry."""


@dataclass(frozen=True)
class Times:
    """Seconds of single steps of one side, in their order."""

    cpu: list[float]
    wall: list[float]


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line of the table; ``reference`` is None for a duration that stands for itself."""

    name: str
    ours: float
    reference: float | None = None
    decimals: int = 3
    limit: float | None = None

    @property
    def ratio(self) -> float | None:
        return None if self.reference is None else self.ours / self.reference

    @property
    def exceeds(self) -> bool:
        return self.limit is not None and (self.ours if self.ratio is None else self.ratio) > self.limit

    def cells(self) -> list[str]:
        reference, ratio, limit = "", "", ""
        if self.reference is not None:
            reference, ratio = f"{self.reference:.{self.decimals}f}", f"{self.ratio:.2f}"
        if self.limit is not None:
            limit = f"{self.limit:.2f}" if self.reference is not None else f"{self.limit:g} s"
        return [self.name, reference, f"{self.ours:.{self.decimals}f}", ratio, limit]


def measure_times(key: str, threads: int, repeats: int, warmup: int, steps: int) -> list[Times]:
    """Times of the sides of a subject, which take turns; to be called in a process of its own."""
    subject = SUBJECTS[key]
    if not subject.repeated:
        repeats, warmup, steps = 1, 0, 1
    sides = [prepare() for prepare in _prepared(subject, threads)]
    times = [Times([], []) for _ in sides]
    for _ in range(repeats):
        for step, of_side in zip(sides, times, strict=True):
            for _ in range(warmup):
                step()
            for _ in range(steps):
                cpu, wall = time.process_time(), time.perf_counter()
                step()
                of_side.cpu.append(time.process_time() - cpu)
                of_side.wall.append(time.perf_counter() - wall)
    return times


def measure_peak(key: str, side: int, threads: int) -> int | None:
    """Bytes that the steps of one side add to the process at their peak; to be called in a process of its own.

    None where the system does not tell.
    """
    from benchmarks.measuring import _forget_resident_peak, _resident

    step = _prepared(SUBJECTS[key], threads)[side]()
    before = _resident("VmRSS")
    _forget_resident_peak()
    step()
    step()
    peak = _resident("VmHWM")
    return None if peak is None or before is None else peak - before


def _prepared(subject: Subject, threads: int) -> list[Callable[[], Step]]:
    import torch

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    return subject.sides


def main(arguments: Sequence[str] | None = None, call: Callable[..., Any] | None = None) -> int:
    """Measure and report.

    Args:
        arguments: of the command line.
        call: calls a function with its arguments and ``variables`` for its environment, in a process of its own;
            :func:`benchmarks.measuring.in_fresh_process` if None.

    Returns:
        The exit code: 1 for a mistake of the user, or a limit that is exceeded where ``--enforce`` is given.
    """
    options = _parser().parse_args(arguments)
    if call is None:
        from benchmarks.measuring import in_fresh_process

        call = in_fresh_process

    def command() -> None:
        lines, times = _measure(options, call)
        if options.data is not None:
            lines += _command_lines(options)
        report = _as_text(lines, options)
        print(report)
        _keep(report, lines, times, options)
        exceeding = [_complaint(line) for line in lines if line.exceeds]
        if options.enforce and exceeding:
            raise UserError("; ".join(exceeding))

    exit_code: int = run(command, interrupted=NOTHING_WRITTEN)
    return exit_code


def _measure(options: argparse.Namespace, call: Callable[..., Any]) -> tuple[list[Line], dict[str, list[Times]]]:
    from benchmarks.measuring import FOR_MEMORY

    lines: list[Line] = []
    times: dict[str, list[Times]] = {}
    for key in options.only:
        subject = SUBJECTS[key]
        print(f"Timing {key} ...", file=sys.stderr)
        how = (options.threads, options.repeats, options.warmup, options.steps)
        times[key] = call(measure_times, key, *how, variables={})
        lines += _time_lines(subject, times[key])
        if subject.repeated:
            print(f"Peak memory of {key} ...", file=sys.stderr)
            sides = range(len(subject.sides))
            peaks = [call(measure_peak, key, side, options.threads, variables=FOR_MEMORY) for side in sides]
            lines += _memory_lines(subject, peaks)
    return lines, times


def _command_lines(options: argparse.Namespace) -> list[Line]:
    """The commands from end to end, in processes of their own."""
    from benchmarks.sam_commands import FEW_VIEWS, MANY_VIEWS, measure_commands

    measured = measure_commands(options.data, options.threads)
    memory = f"sfr_finetune, {MANY_VIEWS} views against {FEW_VIEWS}, peak memory (MiB)"
    return [
        Line(name="sfr_finetune, 1 labelled LA (s)", ours=measured.finetune_seconds, decimals=0, limit=FINETUNE_LIMIT),
        Line(name="sfr_pseudolabel, each case (s)", ours=measured.pseudolabel_seconds, limit=PSEUDOLABEL_LIMIT),
        Line(
            name=memory,
            reference=measured.peak_few_views / MIB,
            ours=measured.peak_many_views / MIB,
            decimals=0,
            limit=MEMORY_LIMIT,
        ),
    ]


def _time_lines(subject: Subject, times: Sequence[Times]) -> list[Line]:
    """CPU time, which other work on the machine changes little, and wall time."""
    cpu = [statistics.median(of_side.cpu) for of_side in times]
    wall = [statistics.median(of_side.wall) for of_side in times]
    if subject.reference is None:
        return [
            Line(name=f"{subject.name}, CPU time (s)", ours=cpu[0]),
            Line(name=f"{subject.name}, wall time (s)", ours=wall[0], limit=subject.limit),
        ]
    return [
        Line(name=f"{subject.name}, CPU time (s)", reference=cpu[0], ours=cpu[1], limit=subject.limit),
        Line(name=f"{subject.name}, wall time (s)", reference=wall[0], ours=wall[1]),
    ]


def _memory_lines(subject: Subject, peaks: Sequence[int | None]) -> list[Line]:
    """None where the system does not tell it, or the steps fit into what the process held before."""
    known = [peak / MIB for peak in peaks if peak]
    if len(known) < len(peaks):
        return []
    reference = known[0] if subject.reference is not None else None
    name = f"{subject.name}, added memory (MiB)"
    return [Line(name=name, reference=reference, ours=known[-1], decimals=0)]


def _as_text(lines: Sequence[Line], options: argparse.Namespace) -> str:
    """Markdown that reads well in a terminal too."""
    from benchmarks.report import aligned_table, circumstances, with_facts

    table = aligned_table([["", "reference", "ours", "ratio", "limit"], *(line.cells() for line in lines)])
    timing = f"{options.repeats} turns of {options.steps} steps each, after {options.warmup} to warm up; medians"
    return with_facts(table, {"timing": timing, **circumstances("cpu", options.threads)})


def _keep(
    report: str, lines: Sequence[Line], times: Mapping[str, Sequence[Times]], options: argparse.Namespace
) -> None:
    from benchmarks.report import circumstances, replace_section
    from nnunet_sfr.atomic import replacing

    if options.output is not None:
        content = report
        if options.output.suffix == ".json":
            raw = {
                "circumstances": circumstances("cpu", options.threads),
                "lines": [{**asdict(line), "ratio": line.ratio} for line in lines],
                "seconds": {key: [asdict(side) for side in sides] for key, sides in times.items()},
            }
            content = json.dumps(raw, indent=2)
        with replacing(options.output) as temporary:
            temporary.write_text(content + "\n", encoding="utf-8")
    if options.update_readme:
        replace_section(README, SECTION, report)


def _complaint(line: Line) -> str:
    if line.ratio is None:
        return f"{line.name}: {line.ours:.1f}, allowed are {line.limit}"
    return f"{line.name}: {line.ratio:.2f} times the reference, allowed are {line.limit}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="benchmarks/sam_step.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    keys = tuple(SUBJECTS)
    parser.add_argument(
        "--only", nargs="+", choices=keys, default=keys, metavar="SUBJECT", help=f"what to measure ({', '.join(keys)})"
    )
    run = parser.add_argument_group("how it is measured")
    run.add_argument("--steps", type=positive_number, default=3, metavar="N", help="timed steps in a turn (3)")
    run.add_argument(
        "--warmup", type=positive_number, default=1, metavar="N", help="steps before them in each turn (1)"
    )
    run.add_argument("--repeats", type=positive_number, default=3, metavar="N", help="turns of each side (3)")
    run.add_argument(
        "--threads",
        type=positive_number,
        default=1,
        metavar="N",
        help="threads of torch; several wait for each other, which counts as CPU time (1)",
    )
    run.add_argument(
        "--data",
        type=Path,
        metavar="FOLDER",
        help="left atria, as benchmarks/study.py takes them: measure sfr_finetune and sfr_pseudolabel from end to end "
        "too; their limits are meant for --threads 2 on two quiet cores",
    )
    add_report_options(parser, enforced="a measured value")
    return parser


if __name__ == "__main__":
    sys.exit(main())
