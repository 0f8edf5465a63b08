"""What results.json says a run has cost."""

import json
import statistics
from types import SimpleNamespace

import torch
from torch import nn

from bixt3d.training.cost import run_cost
from bixt3d.training.curves import read_rates


class Clouds:
    """A loader of clouds of 10 points."""

    batch_size = 7

    def epoch(self, epoch):
        yield SimpleNamespace(points=torch.rand(self.batch_size, 10, 3))


class Asks:
    """A task that hands the points on."""

    def predict(self, model, batch):
        return model(batch.points), None


class ByValue(nn.Linear):
    def forward(self, points):
        return super().forward(points[points[..., 0] > 0.5])  # has no shape before it has values


def test_a_linear_map_costs_what_a_hand_counts(tmp_path):
    cost = run_cost(nn.Linear(3, 5), Asks(), Clouds(), tmp_path)
    assert (cost["parameters"], cost["operations"]) == (20, 2 * 10 * 3 * 5)
    assert cost["samples_per_second"] is None
    assert cost["peak_memory"] > 50e6  # bytes: torch alone needs more


def test_a_model_that_cannot_be_counted_costs_no_report(tmp_path):
    model = ByValue(3, 5)
    cost = run_cost(model, Asks(), Clouds(), tmp_path)
    assert (cost["parameters"], cost["operations"]) == (20, None)
    assert not model._forward_pre_hooks


def test_a_run_says_what_it_cost(tiny_run):
    said = json.loads((tiny_run / "results.json").read_text())
    weights = torch.load(tiny_run / "best.pt", weights_only=True)["model"]
    assert said["parameters"] == sum(w.numel() for w in weights.values())
    assert 1e5 < said["operations"] < 1e7
    assert abs(said["samples_per_second"] / statistics.median(read_rates(tiny_run)) - 1) < 1e-3
