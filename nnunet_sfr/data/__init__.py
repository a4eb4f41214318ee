"""Cases on disk: listed and checked (raw), preprocessed, and read by the loaders."""
