"""Load checkpoints, predict files, prepare scenes for the viewer and export models."""
