"""Training from a config: assembly, the run and its folder, logs and reports, searches over many runs."""
