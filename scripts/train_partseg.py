"""Train a part segmenter: ``python scripts/train_partseg.py cfgs/quickstart_partseg.yaml [key=value ...]``."""

from pathlib import Path

from bixt3d.config import launch
from bixt3d.training.experiment import main

if __name__ == "__main__":
    launch(main, config_root=Path(__file__).parents[1] / "cfgs")
