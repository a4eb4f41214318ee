"""Attention with relative positions gives segment-anything's numbers without its matrix of all pairs."""

from __future__ import annotations

import copy

import pytest
import torch
from segment_anything.modeling.image_encoder import Attention
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from nnunet_sfr.sam_stage.layers import relative_attention
from nnunet_sfr.sam_stage.layers.relative_attention import RelativeAttention, _attend

SHAPES = pytest.mark.parametrize(
    ("batch", "height", "width", "heads", "dim"),
    [(6, 7, 7, 3, 24), (1, 12, 12, 2, 32), (2, 5, 9, 2, 16), (2, 9, 4, 1, 8), (1, 1, 1, 1, 4)],
    ids=["windows", "global", "wide", "high", "one token"],
)


def pair(height: int, width: int, heads: int, dim: int, dtype: torch.dtype) -> tuple[Attention, RelativeAttention]:
    """segment-anything's attention with random relative positions, and ours with a copy of its parameters."""
    torch.manual_seed(0)
    theirs = Attention(dim, heads, use_rel_pos=True, input_size=(height, width)).to(dtype)
    nn.init.normal_(theirs.rel_pos_h)
    nn.init.normal_(theirs.rel_pos_w)
    return theirs, RelativeAttention(copy.deepcopy(theirs))


def gradients(module: nn.Module, tokens: Tensor, weights: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Output, and the gradients of its weighted sum by name."""
    tokens = tokens.clone().requires_grad_()
    output = module(tokens)
    (output * weights).sum().backward()
    assert tokens.grad is not None
    named = {name: parameter.grad for name, parameter in module.named_parameters() if parameter.grad is not None}
    return output.detach(), {"tokens": tokens.grad, **named}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@SHAPES
def test_equals_segment_anything(batch: int, height: int, width: int, heads: int, dim: int, dtype: torch.dtype) -> None:
    theirs, ours = pair(height, width, heads, dim, dtype)
    tokens, weights = torch.randn(2, batch, height, width, dim, dtype=dtype)
    expected, expected_gradients = gradients(theirs, tokens, weights)
    output, own_gradients = gradients(ours, tokens, weights)
    torch.testing.assert_close(output, expected, rtol=1e-5, atol=1e-5)
    assert own_gradients.keys() == expected_gradients.keys()
    assert own_gradients.keys() >= {"tokens", "qkv.weight", "qkv.bias", "proj.weight", "rel_pos_h", "rel_pos_w"}
    for name, gradient in own_gradients.items():
        scale = expected_gradients[name].abs().max().item()
        torch.testing.assert_close(gradient, expected_gradients[name], rtol=1e-5, atol=1e-5 * max(scale, 1), msg=name)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@SHAPES
@pytest.mark.parametrize("queries", [256, 10])
def test_equals_segment_anything_without_gradients(
    monkeypatch: pytest.MonkeyPatch,
    batch: int,
    height: int,
    width: int,
    heads: int,
    dim: int,
    dtype: torch.dtype,
    queries: int,
) -> None:
    monkeypatch.setattr(relative_attention, "_QUERIES_AT_A_TIME", queries)
    theirs, ours = pair(height, width, heads, dim, dtype)
    tokens = torch.randn(batch, height, width, dim, dtype=dtype)
    with torch.no_grad(), sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        torch.testing.assert_close(ours(tokens), theirs(tokens), rtol=1e-5, atol=1e-5)


def test_relative_positions_matter() -> None:
    """The other tests would pass with both positions ignored or exchanged by both sides: here they are not."""
    _, ours = pair(5, 5, 2, 16, torch.float32)
    tokens = torch.randn(1, 5, 5, 16)
    before = ours(tokens)
    with torch.no_grad():
        ours.rel_pos_h.zero_()
    without_rows = ours(tokens)
    assert not torch.allclose(without_rows, before, atol=1e-3)
    with torch.no_grad():
        ours.rel_pos_w.zero_()
    assert not torch.allclose(ours(tokens), without_rows, atol=1e-3)


def test_names_of_parameters_stay() -> None:
    theirs, ours = pair(4, 4, 2, 8, torch.float32)
    state = ours.state_dict()
    assert list(state) == list(theirs.state_dict())
    assert all(torch.equal(state[name], tensor) for name, tensor in theirs.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_nothing_is_kept_for_every_pair_of_tokens(dtype: torch.dtype) -> None:
    """With a fused kernel alone allowed it still runs, and what autograd keeps is linear in the tokens."""
    side, heads, dim = 24, 2, 16
    theirs, ours = pair(side, side, heads, dim, torch.float32)
    tokens = torch.randn(1, side, side, dim, requires_grad=True)
    pairs = heads * side**4

    def kept(module: nn.Module) -> list[int]:
        sizes: list[int] = []

        def pack(tensor: Tensor) -> Tensor:
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            module(tokens).float().sum().backward()
        return sizes

    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype is torch.bfloat16):
        with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
            largest = max(kept(ours))
        assert max(kept(theirs)) == pairs
    # query and key have the length of a head and one entry for each row and column
    assert largest == heads * side**2 * (dim // heads + 2 * side)
    assert largest < pairs / 5


def test_lengthened_values_are_cut_again() -> None:
    torch.manual_seed(1)
    query, key = torch.randn(2, 1, 2, 10, 9)
    value = torch.randn(1, 2, 10, 4)
    expected = torch.softmax(query @ key.mT, dim=-1) @ value
    torch.testing.assert_close(_attend(query, key, value), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_fused_kernels_on_a_gpu(dtype: torch.dtype) -> None:
    """The odd side asks for vectors lengthened to a multiple of eight."""
    side, heads, dim = 27, 2, 32
    theirs, ours = (module.cuda() for module in pair(side, side, heads, dim, torch.float32))
    tokens, weights = torch.randn(2, 1, side, side, dim, device="cuda")
    expected, _ = gradients(theirs, tokens, weights)
    fused = SDPBackend.EFFICIENT_ATTENTION if dtype is torch.float32 else SDPBackend.FLASH_ATTENTION
    with torch.autocast("cuda", dtype=torch.bfloat16, enabled=dtype is torch.bfloat16), sdpa_kernel(fused):
        output, _ = gradients(ours, tokens, weights)
    tolerance = 1e-3 if dtype is torch.float32 else 5e-2
    torch.testing.assert_close(output.float(), expected, rtol=tolerance, atol=tolerance)


def test_tables_for_another_size_are_refused() -> None:
    _, ours = pair(4, 4, 2, 8, torch.float32)
    with pytest.raises(ValueError, match="for 4 tokens along a side, got 5"):
        ours(torch.zeros(1, 5, 4, 8))
    with pytest.raises(ValueError, match="no relative positions"):
        RelativeAttention(Attention(8, 2))
