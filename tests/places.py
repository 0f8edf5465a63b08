"""What tests anywhere in this folder agree on."""

from pathlib import Path

ROOT = Path(__file__).parents[1]
PATIENCE = 300  # seconds for a subprocess; the machine may be busy with other things
