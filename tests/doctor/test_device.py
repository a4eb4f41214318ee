"""The device that ``-device auto`` takes, told as it is."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from nnunet_sfr import cores, devices
from nnunet_sfr.doctor import device as doctor_device
from nnunet_sfr.doctor.device import check_cores, check_device

GIB = 2**30


def give_gpu(monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int]) -> None:
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "RTX 0")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(total_memory=24 * GIB))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)


@pytest.mark.parametrize(
    ("capability", "precision"), [((8, 6), "bfloat16"), ((7, 5), "float16 (no bfloat16 of its own)")]
)
def test_a_gpu(capability: tuple[int, int], precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    give_gpu(monkeypatch, capability)
    (finding,) = check_device()
    assert (finding.level.value, finding.text) == ("ok", f"cuda: RTX 0, 24.0 GiB, {precision}")


def test_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", "13.2")
    (finding,) = check_device()
    assert finding.level.value == "note"
    assert "built for CUDA 13.2 and finds no GPU" in finding.text
    assert "ExperimentPlannerCPU" in finding.remedy
    assert "let SAM be lite_medsam" in finding.remedy


@pytest.mark.parametrize(("native", "precision"), [(True, "SAM in bfloat16"), (False, "single precision")])
def test_the_precision_of_a_cpu(native: bool, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(devices, "_cpu_has_bfloat16", lambda: native)
    (finding,) = check_device()
    assert finding.text.startswith(f"CPU alone, {precision}")


@pytest.mark.parametrize(("threads", "words"), [(1, "torch uses 1 thread,"), (3, "torch uses 3 threads,")])
def test_cores(monkeypatch: pytest.MonkeyPatch, threads: int, words: str) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    (finding,) = check_cores()
    assert words in finding.text


@pytest.mark.parametrize(
    ("limits", "memory"),
    [
        ({"memory.max": "max\n"}, "64.0 GiB"),
        ({"memory.max": f"{3 * GIB}\n"}, "3.00 GiB"),
        ({"memory.limit_in_bytes": f"{5 * GIB}\n"}, "5.00 GiB"),
        ({"memory.limit_in_bytes": "9223372036854771712\n"}, "64.0 GiB"),
        ({}, "64.0 GiB"),
    ],
)
def test_what_a_container_may_use(
    limits: dict[str, str], memory: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One and a half cores of 16, and less memory than the machine has, where a limit is set."""
    for name, content in {"cpu.max": "150000 100000\n", **limits}.items():
        (tmp_path / name).write_text(content)
    monkeypatch.setattr(cores, "_QUOTA", tmp_path / "cpu.max")
    monkeypatch.setattr(doctor_device, "_MEMORY_LIMITS", (tmp_path / "memory.max", tmp_path / "memory.limit_in_bytes"))
    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(16)), raising=False)
    monkeypatch.setattr(os, "sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 64 * GIB // 4096}.__getitem__)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    (finding,) = check_cores()
    assert finding.text == f"16 (2 of them for this process), torch uses 2 threads, {memory} of main memory"
