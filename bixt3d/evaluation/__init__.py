"""From a checkpoint to figures, on clean and on corrupted clouds, and their reports."""
