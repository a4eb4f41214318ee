"""Small trainable networks in the blocks of a frozen transformer (MSA, https://arxiv.org/abs/2304.12620)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class Bottleneck(nn.Module):
    """``up(relu(down(x)))``, zero until it is trained.

    Args:
        channels: of the tokens.
        width: channels in the middle.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.down = nn.Linear(channels, width)
        self.up = nn.Linear(width, channels)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        """From [..., channels] to [..., channels]."""
        change: Tensor = self.up(F.relu(self.down(tokens)))
        return change


class AdaptedAttention(nn.Module):
    """Attention with a bottleneck behind it: ``y + bottleneck(y)`` with ``y = attn(x)``."""

    def __init__(self, attn: nn.Module, bottleneck: Bottleneck) -> None:
        super().__init__()
        self.attn = attn
        self.bottleneck = bottleneck

    @property
    def qkv(self) -> nn.Module:
        """The attention's projection to query, key and value."""
        return self.attn.get_submodule("qkv")

    def forward(self, tokens: Tensor) -> Tensor:
        """From [..., channels] to [..., channels]."""
        attended = self.attn(tokens)
        adapted: Tensor = attended + self.bottleneck(attended)
        return adapted


class AdaptedMLP(nn.Module):
    """An MLP with a bottleneck beside it: ``mlp(x) + bottleneck(x)``."""

    def __init__(self, mlp: nn.Module, bottleneck: Bottleneck) -> None:
        super().__init__()
        self.mlp = mlp
        self.bottleneck = bottleneck

    def forward(self, tokens: Tensor) -> Tensor:
        """From [..., channels] to [..., channels]."""
        changed: Tensor = self.mlp(tokens) + self.bottleneck(tokens)
        return changed
