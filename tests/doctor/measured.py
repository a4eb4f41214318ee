"""What estimates of memory are held against: measured peaks, and a GPU's precision without a GPU."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from packaging.version import Version
from torch.profiler import ProfilerActivity, profile

counts_on_cuda = pytest.mark.skipif(
    not torch.backends.cuda.is_built()
    or (not torch.cuda.is_available() and Version(torch.__version__) < Version("2.14")),
    reason="torch is built without CUDA, or too old to count for a GPU where there is none (2.4 ends the process)",
)
"""Tests that count the memory of a GPU, which need none."""


def peak_of(function: Callable[[], object]) -> int:
    """Bytes that tensors take at their highest while a function runs."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        function()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "trace.json")
        profiler.export_chrome_trace(str(file))
        events = json.loads(file.read_text(encoding="utf-8"))["traceEvents"]
    return max(int(event["args"]["Total Allocated"]) for event in events if event["name"] == "[memory]")


@contextmanager
def autocast_on_cuda() -> Iterator[None]:
    """What torch.autocast does on a machine with a GPU, also on one without."""
    before = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
    torch.set_autocast_enabled("cuda", True)
    torch.set_autocast_dtype("cuda", torch.bfloat16)
    try:
        yield
    finally:
        torch.set_autocast_enabled("cuda", before[0])
        torch.set_autocast_dtype("cuda", before[1])
        torch.clear_autocast_cache()
