"""Measure how near clouds of val and test are to those of train, and the accuracy of a nearest-neighbour classifier.

python benchmarks/splits.py DIR [--candidates 24]

DIR holds ModelNet40. Clouds are compared by Chamfer distance: the distance from a point to the nearest one of the other
cloud, averaged over the points of both, in units of the radius of each cloud's sphere. It is computed only to the
`--candidates` training clouds with the most similar occupied cells (16 along each axis, blurred). The row "train"
compares as many training clouds as val has with all others. A classifier that copies the label of the nearest cloud
learns and selects nothing, and so shows how hard the splits are without a model. "test's shares" weights the accuracy
of each class by its share of test.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool3d

from bixt3d.datasets import ModelNet40
from bixt3d.ops import knn

CELLS = 16


def occupancy(points: Tensor) -> Tensor:
    """Describe ``(B, N, 3)`` points in [-1, 1] by the root of their share in each blurred cell, ``(B, 4096)``."""
    cell = ((points + 1) / 2 * CELLS).long().clamp(0, CELLS - 1)
    flat = (cell[..., 0] * CELLS + cell[..., 1]) * CELLS + cell[..., 2]
    counts = torch.zeros(len(points), CELLS**3).scatter_add_(1, flat, torch.ones(flat.shape))
    blurred = avg_pool3d(counts.view(-1, 1, CELLS, CELLS, CELLS), 3, stride=1, padding=1).flatten(1)
    return (blurred / blurred.sum(dim=1, keepdim=True)).sqrt()


def chamfer(cloud: Tensor, others: Tensor) -> Tensor:
    """Return the distance of ``(N, 3)`` to each of ``(B, N', 3)``, ``(B,)``: the mean of both directions."""
    repeated = cloud.expand(len(others), -1, -1)
    there = knn(repeated, others, 1)[0].sqrt().mean(dim=(1, 2))
    back = knn(others, repeated, 1)[0].sqrt().mean(dim=(1, 2))
    return (there + back) / 2


def nearest(
    queries: Tensor, train: Tensor, candidates: int, own: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return distance and index of the nearest of the clouds ``train`` for each query, ``(Q,)`` each.

    ``own`` holds the indices of the queries in ``train``, if they are part of it, to exclude them.
    """
    alike = occupancy(queries) @ occupancy(train).T
    if own is not None:
        alike[torch.arange(len(own)), own] = -1
    chosen = alike.topk(min(candidates, len(train) - (own is not None)), dim=1).indices
    found = []
    for query, index in zip(queries, chosen, strict=True):
        distance = chamfer(query, train[index])
        best = int(distance.argmin())
        found.append((float(distance[best]), int(index[best])))
    distances, places = zip(*found, strict=True)
    return torch.tensor(distances), torch.tensor(places)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("root", metavar="DIR", help="folder of ModelNet40")
    parser.add_argument(
        "--candidates", type=int, default=24, help="training clouds compared per cloud (default: 24)"
    )
    options = parser.parse_args()
    dataset = ModelNet40(options.root)
    clouds = {split: dataset.load(split) for split in ("train", "val", "test")}
    points = {split: torch.from_numpy(np.array(c.points)) for split, c in clouds.items()}
    labels = {split: torch.from_numpy(np.array(c.labels)) for split, c in clouds.items()}
    own = torch.randperm(len(points["train"]), generator=torch.Generator().manual_seed(0))[
        : len(points["val"])
    ]
    print(
        "| split | clouds | to the nearest training cloud: 5 % of clouds below | 25 % | 50 % | 75 % | 95 % "
        "| label of the nearest: OA / mAcc | OA with test's shares |\n|---|---|---|---|---|---|---|---|---|"
    )
    shares = torch.bincount(labels["test"]).double() / len(labels["test"])
    for split in ("train", "val", "test"):
        chosen = own if split == "train" else torch.arange(len(points[split]))
        distances, places = nearest(
            points[split][chosen], points["train"], options.candidates, own if split == "train" else None
        )
        quantiles = distances.quantile(torch.tensor([0.05, 0.25, 0.5, 0.75, 0.95]))
        truth, guess = labels[split][chosen], labels["train"][places]
        right = (guess == truth).double()
        per_class = torch.stack([right[truth == k].mean() for k in range(len(dataset.classes))])
        print(
            f"| {split} | {len(chosen)} | "
            + " | ".join(f"{q:.4f}" for q in quantiles.tolist())
            + f" | {100 * right.mean():.2f} / {100 * per_class.mean():.2f} | {100 * (per_class * shares).sum():.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
