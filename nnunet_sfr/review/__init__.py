"""Looking at pseudo-labels and correcting them in the browser, for ``sfr_review``."""
