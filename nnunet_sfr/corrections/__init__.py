"""Corrected labels come back: unlabelled cases become labelled ones, and only what depends on them is redone."""
