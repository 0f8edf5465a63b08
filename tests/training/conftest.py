"""Searches that the tests of this folder share."""

import pytest
import yaml
from places import ROOT

TINY = str(ROOT / "tests" / "tiny.yaml")
SETTINGS = {"plain": [], "fast, bold": ["optim.optimizer.lr=0.25"], "wide": ["model.encoder.num_latents=8"]}


@pytest.fixture
def written(tmp_path):
    """Write a search: the tiny config unless told otherwise; None leaves a key out."""

    def write(**keys):
        node = {"base": TINY, "seeds": [0, 1], "settings": SETTINGS, **keys}
        path = tmp_path / "toy.yaml"
        path.write_text(yaml.safe_dump({k: v for k, v in node.items() if v is not None}, sort_keys=False))
        return path

    return write
