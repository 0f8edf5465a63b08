"""Models without weights for tests of what stands around a model, and predictors of them."""

import torch
from torch import nn

from bixt3d.inference.predictor import Predictor

PARTS = ("cup/body", "cup/handle", "hat/brim")


class Segmenter(nn.Module):
    in_channels = 3
    min_points = 8

    def forward(self, points, category=None):
        return torch.stack([points[..., 0], -points[..., 1], points[..., 2]], dim=-1) * 9


class Classifier(nn.Module):
    in_channels = 3
    min_points = 1

    def forward(self, points):
        spread = points.std(dim=1)
        return 5 * torch.cat([spread, -spread, spread * 0], dim=-1)


def segmenter(**options):
    return Predictor(Segmenter(), classes=("cup", "hat"), parts=PARTS, num_points=32, batch_size=4, **options)
