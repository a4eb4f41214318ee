"""Measurements of what SFR costs over stock nnU-Net."""
