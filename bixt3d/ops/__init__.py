"""Point-cloud operations and bi-directional attention, each with one contract and several backends.

Clouds are (B, N, 3) and features (B, N, C), channels last. Indices are int64. ``available_backends`` lists what can
run on this machine. ``backend=None`` picks the first that can. A named backend never falls back to another.
"""

from .ball_query import ball_query
from .bidirectional_attention import (
    attention_weights,
    bidirectional_attention,
    join_latents,
    latent_attention,
)
from .dispatch import available_backends
from .farthest_point_sample import farthest_point_sample
from .gather import gather_points, group_points
from .group_max import group_max
from .interpolate import three_interpolate, three_nn
from .knn import knn
from .neighbors import neighbor_max, neighbor_sum
from .residual_mlp import residual_mlp
from .stream_attention import stream_attention

__all__ = [
    "attention_weights",
    "available_backends",
    "ball_query",
    "bidirectional_attention",
    "farthest_point_sample",
    "gather_points",
    "group_max",
    "group_points",
    "join_latents",
    "knn",
    "latent_attention",
    "neighbor_max",
    "neighbor_sum",
    "residual_mlp",
    "stream_attention",
    "three_interpolate",
    "three_nn",
]
