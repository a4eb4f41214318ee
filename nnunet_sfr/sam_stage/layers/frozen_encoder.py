"""An image encoder that is only asked for embeddings."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nnunet_sfr.sam_stage.inference_precision import inference_autocast


class FrozenEncoder(nn.Module):
    """Runs an encoder without gradients, channels last, in bfloat16 where that is native. It has no training mode.

    Args:
        encoder: changed in place: frozen, in evaluation mode, its weights channels last.
    """

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder.requires_grad_(False).to(memory_format=torch.channels_last)
        self.eval()

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Embed images.

        Args:
            images: float32 [B, channels, S, S].

        Returns:
            float32 [B, dim, S / stride, S / stride], contiguous.
        """
        with inference_autocast(images.device):
            embedding: Tensor = self.encoder(images.contiguous(memory_format=torch.channels_last))
        return embedding.float().contiguous()

    def train(self, mode: bool = True) -> FrozenEncoder:
        """Stays in evaluation mode."""
        return super().train(False)
