"""The image encoders of SAM: each a file that ends with a record ``BACKBONE``, named by ``SAMModel.backbone``."""

from __future__ import annotations

from importlib import import_module

from nnunet_sfr.sam_models import SAMModel
from nnunet_sfr.sam_stage.backbones.backbone import Backbone


def find_backbone(model: SAMModel) -> Backbone:
    """The encoder family of a model."""
    backbone: Backbone = import_module(f"{__name__}.{model.backbone}").BACKBONE
    return backbone
