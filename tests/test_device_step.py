"""A training step keeps to the model's device: nothing is made on the CPU beside it, and nothing waits for it.

Tensors of torch's ``meta`` device hold no numbers. An op that mixes them with tensors of the CPU raises, as it would on
a GPU, and so does one that reads a number back, for which a GPU would have to finish what it was given first.
"""

import pytest
import torch
from places import ROOT
from torch import nn
from torch.nn.utils import clip_grad_norm_

from bixt3d.config import build
from bixt3d.datasets import Batch
from bixt3d.layers import PointTokenizer
from bixt3d.optim import ExponentialAverage, parameter_groups
from bixt3d.training.assembly import build_augment, build_model, build_task

CFGS = ROOT / "cfgs"
CORRUPTS = "which corruption a batch gets is read back from the device"
CONFIGS = [
    pytest.param(
        path, marks=[pytest.mark.xfail(reason=CORRUPTS, strict=True)] * (path.stem == "modelnet40_cpu_robust")
    )
    for path in sorted(CFGS.glob("*.yaml"))
]
CLASSES, PARTS = ("bag", "cap"), ("bag/body", "bag/strap", "cap/crown")


def step(config, change=lambda model: None):
    """Augment two clouds that hold no numbers, and take a step of the config on them."""
    task = build_task(config, CLASSES, PARTS)
    model = build_model(config, task)
    change(model)
    augment = build_augment(config, model)
    model = model.to("meta").train()
    optimizer = build(config["optim"]["optimizer"])(parameter_groups(model))
    average = ExponentialAverage(model, 0.9)

    def tensor(*shape, dtype=torch.int64):
        return torch.empty(shape, dtype=dtype, device="meta")

    n = max(32, model.min_points)
    points, part_labels = augment(tensor(2, n, model.in_channels, dtype=torch.float32), tensor(2, n))
    loss = task.loss(*task.predict(model, Batch(points, tensor(2), part_labels, tensor(2))))
    loss.backward()
    clip_grad_norm_(model.parameters(), 1.0, error_if_nonfinite=False)
    optimizer.step()
    average.update_parameters(model)
    assert all(p.grad.device.type == "meta" for p in model.parameters() if p.requires_grad)
    return loss


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_step_stays_on_the_device(compose, path):
    assert step(compose(path)).device.type == "meta"


class OnTheCPU(PointTokenizer):
    def forward(self, points):
        return super().forward(points) + torch.zeros(points.shape[1], 1)


class ReadsBack(PointTokenizer):
    def forward(self, points):
        return super().forward(points / points.abs().max().item())


@pytest.mark.parametrize("kind", [OnTheCPU, ReadsBack])
def test_a_step_that_leaves_the_device_is_found(compose, kind):
    """The test above can fail."""

    def change(model: nn.Module) -> None:
        model.tokenizer.__class__ = kind

    with pytest.raises((RuntimeError, NotImplementedError), match="meta"):
        step(compose(CFGS / "modelnet40_naive.yaml"), change)
