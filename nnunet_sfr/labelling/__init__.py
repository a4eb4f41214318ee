"""Fills the pseudo-label store: from networks, from trained nnU-Net models, from label maps; SAM uses its loop too."""
