"""The SAM stage of SFR: stitch a patch, segment the stitched image with SAM, fine-tune it, bring the labels back."""
