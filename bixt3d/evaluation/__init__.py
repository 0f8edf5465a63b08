"""Evaluate checkpoints on clean and corrupted clouds, and write reports."""
