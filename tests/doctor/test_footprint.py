"""Counted memory against sums by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from nnunet_sfr.doctor.footprint import forward_pass
from tests.doctor.measured import autocast_on_cuda, counts_on_cuda

CPU = torch.device("cpu")
FLOAT = 4


class Chain(nn.Module):
    """Exponentials one after the other; each one's output is what its backward pass reads."""

    def __init__(self, length: int) -> None:
        super().__init__()
        self.length = length

    def forward(self, values: Tensor) -> Tensor:
        for _ in range(self.length):
            values = values.exp()
        return values


class WithWeight(nn.Module):
    """An input of n numbers, times a weight of n, exponentiated."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(n))
        self.frozen = nn.Parameter(torch.zeros(10), requires_grad=False)

    def forward(self, values: Tensor) -> Tensor:
        return (values * self.weight).exp()


def test_a_chain_without_gradients_holds_two_tensors() -> None:
    counted = forward_pass(Chain(5), (100,), CPU, gradients=False)
    # the input, which the caller holds, one operation's input and its output
    assert counted.peak == 3 * 100 * FLOAT
    assert counted.kept == 2 * 100 * FLOAT
    assert (counted.largest, counted.trainable) == (100 * FLOAT, 0)


def test_what_a_backward_pass_reads_is_kept() -> None:
    counted = forward_pass(WithWeight(100), (100,), CPU, gradients=True)
    # weight, frozen weight, input, output; the product is not read again once it is exponentiated
    assert counted.kept == (100 + 10 + 100 + 100) * FLOAT
    assert counted.peak == counted.kept + 100 * FLOAT
    assert counted.trainable == 100 * FLOAT


def test_a_training_step_adds_gradients_and_the_optimisers_states() -> None:
    counted = forward_pass(WithWeight(100), (100,), CPU, gradients=True)
    backward = counted.kept + 2 * 100 * FLOAT
    assert counted.training_peak(optimizer_states=1) == backward + 2 * 100 * FLOAT
    assert counted.training_peak(optimizer_states=2) == backward + 3 * 100 * FLOAT


def test_views_cost_nothing_and_shared_weights_count_once() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = nn.Linear(10, 10, bias=False)
            self.other = self.one

        def forward(self, values: Tensor) -> Tensor:
            output: Tensor = self.other(self.one(values).reshape(10, 5).T)
            return output

    counted = forward_pass(Tied(), (5, 10), CPU, gradients=True)
    assert counted.trainable == 100 * FLOAT
    # weight, input, and the outputs of both layers
    assert counted.kept == (100 + 50 + 50 + 50) * FLOAT


def test_the_network_is_not_changed_and_may_have_no_memory_itself() -> None:
    with torch.device("meta"):
        network = nn.Sequential(nn.Linear(1000, 1000), nn.BatchNorm1d(1000))
    before = dict(network.named_parameters())
    counted = forward_pass(network, (7, 1000), CPU, gradients=True)
    assert counted.trainable == (1000 * 1000 + 3 * 1000) * FLOAT
    assert all(parameter is before[name] and parameter.is_meta for name, parameter in network.named_parameters())


@counts_on_cuda
def test_a_gpu_computes_in_mixed_precision() -> None:
    """A linear layer in half precision, softmax in single: attention keeps both, six bytes a number instead of four."""

    class Attention(nn.Module):
        def forward(self, queries: Tensor) -> Tensor:
            return (queries @ queries.T).softmax(dim=-1) @ queries

    # a weight, so that there is something to keep tensors for
    network = nn.Sequential(nn.Linear(16, 16, bias=False), Attention())
    single = forward_pass(network, (2000, 16), CPU, gradients=True)
    with autocast_on_cuda():
        mixed = forward_pass(network, (2000, 16), torch.device("cuda"), gradients=True)
    attention = 2000 * 2000
    assert single.kept == pytest.approx(attention * 4, rel=0.05)
    assert mixed.kept == pytest.approx(attention * 6, rel=0.05)
