"""From raw images to plans: fingerprint, nnU-Net's plan, the mosaic, the SFR plan."""
