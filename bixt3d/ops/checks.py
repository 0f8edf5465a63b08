"""Check the inputs of ops. All wording of input errors in :mod:`bixt3d.ops` is here.

Every public op calls these checks first, so backends may assume valid input. No check reads the values of a tensor on
an accelerator, since that would synchronise with the device.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

import torch
from torch import Tensor

FLOAT_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def shape_of(x: Tensor) -> str:
    """Format the shape of ``x`` for messages."""
    return "(" + ", ".join(str(size) for size in x.shape) + ("," if x.ndim == 1 else "") + ")"


def dtype_name(dtype: torch.dtype) -> str:
    """Format a dtype for messages, such as ``float32``."""
    return str(dtype).removeprefix("torch.")


def tensors_among(inputs: Iterable[Any], options: Mapping[str, Any]) -> list[Tensor]:
    """Return the tensors among the positional and keyword arguments of an op."""
    return [value for value in (*inputs, *options.values()) if isinstance(value, Tensor)]


def unknown_option(what: str, got: object, valid: Iterable[str]) -> NoReturn:
    """Raise ValueError for an unknown option and list the valid ones."""
    raise ValueError(f"unknown {what} {got!r}; choose one of: {', '.join(sorted(valid))}")


def tensor(name: str, value: object) -> None:
    """Require a tensor."""
    if not isinstance(value, Tensor):
        raise TypeError(
            f"{name} has type {type(value).__name__}, expected a torch.Tensor; use torch.as_tensor"
        )


def floating(name: str, value: Tensor) -> None:
    """Require a tensor of one of the four supported float dtypes."""
    tensor(name, value)
    if value.dtype not in FLOAT_DTYPES:
        raise TypeError(
            f"{name} has dtype {dtype_name(value.dtype)}, expected float16, bfloat16, float32 or float64; "
            f"convert it with {name}.float()"
        )


def cloud(name: str, value: Tensor, letters: str = "B, N, 3") -> None:
    """Require a batch of clouds, channels last. If ``letters`` ends in 3, the channels have to be x, y, z."""
    floating(name, value)
    xyz = letters.endswith("3")
    if value.ndim != 3 or (xyz and value.shape[2] != 3) or value.shape[2] == 0:
        hint = "add the batch axis with [None]" if value.ndim == 2 else "put the coordinates last"
        raise ValueError(f"{name} has shape {shape_of(value)}, expected ({letters}); {hint}")


def same_kind(first_name: str, first: Tensor, name: str, value: Tensor) -> None:
    """Require two tensors of the same dtype on the same device."""
    if value.dtype != first.dtype:
        raise TypeError(
            f"{name} has dtype {dtype_name(value.dtype)}, expected {dtype_name(first.dtype)}, the dtype of "
            f"{first_name}; convert one of the two"
        )
    same_device(first_name, first, name, value)


def same_kind_or_autocast(first_name: str, first: Tensor, name: str, value: Tensor) -> None:
    """Require two tensors on the same device, and of the same dtype unless autocast converts both."""
    same_device(first_name, first, name, value)
    if value.dtype != first.dtype and not torch.is_autocast_enabled(first.device.type):
        same_kind(first_name, first, name, value)


def same_device(first_name: str, first: Tensor, name: str, value: Tensor) -> None:
    """Require two tensors on the same device."""
    if value.device != first.device:
        raise ValueError(
            f"{name} is on {value.device}, expected {first.device}, the device of {first_name}; move it with .to()"
        )


def query_and_points(query: Tensor, points: Tensor, axes: str = "3") -> None:
    """Require queries and points of the same dtype, device, batch size and number of axes."""
    cloud("query", query, f"B, M, {axes}")
    cloud("points", points, f"B, N, {axes}")
    same_kind("points", points, "query", query)
    if query.shape[0] != points.shape[0] or query.shape[2] != points.shape[2]:
        raise ValueError(
            f"query has shape {shape_of(query)} and points has shape {shape_of(points)}, "
            f"expected (B, M, {axes}) and (B, N, {axes}) with the same batch size B and number of axes"
        )


def count(name: str, value: int) -> None:
    """Require a positive integer."""
    if isinstance(value, bool) or not isinstance(value, (int, torch.SymInt)):
        raise TypeError(f"{name} has type {type(value).__name__}, expected an int")
    if value < 1:
        raise ValueError(f"{name} is {value}, expected at least 1")


def enough_points(name: str, asked: int, points: Tensor) -> None:
    """Require that each cloud has at least as many points as are requested."""
    if asked > points.shape[1]:
        raise ValueError(
            f"{name} is {asked}, but points holds {points.shape[1]} points per cloud, expected {name} <= N; "
            f"ask for fewer or give larger clouds"
        )


def not_empty(points: Tensor) -> None:
    """Require at least one point per cloud."""
    if points.shape[1] == 0:
        raise ValueError(
            f"points has shape {shape_of(points)}, expected at least one point per cloud; "
            f"leave out empty clouds"
        )


def radius(value: float) -> None:
    """Require a positive, finite radius."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"radius has type {type(value).__name__}, expected a float")
    if not 0 < value < math.inf:
        raise ValueError(f"radius is {value}, expected a positive finite number in the unit of points")


def start(value: int | Tensor, points: Tensor) -> None:
    """Require a start index for every cloud. :func:`start_in_range` checks the values of a tensor."""
    if isinstance(value, Tensor):
        if value.dtype != torch.int64:
            raise TypeError(
                f"start has dtype {dtype_name(value.dtype)}, expected int64; convert it with .long()"
            )
        if value.ndim != 1 or value.shape[0] != points.shape[0]:
            raise ValueError(
                f"start has shape {shape_of(value)}, expected ({points.shape[0]},): one index per cloud"
            )
        same_device("points", points, "start", value)
        return
    if isinstance(value, bool) or not isinstance(value, (int, torch.SymInt)):
        raise TypeError(f"start has type {type(value).__name__}, expected an int or an int64 tensor (B,)")
    if not 0 <= value < points.shape[1]:
        raise ValueError(f"start is {value}, expected the index of a point, 0 to {points.shape[1] - 1}")


def start_in_range(value: Tensor, points: Tensor) -> None:
    """Require start indices within range. Only checked on the CPU: elsewhere, reading them would synchronise."""
    if value.device.type != "cpu":
        return
    wrong = value[(value < 0) | (value >= points.shape[1])]
    if wrong.numel():
        raise ValueError(
            f"start holds {int(wrong[0])}, expected indices of points, 0 to {points.shape[1] - 1}"
        )


def index_in_range(value: Tensor, num_points: int) -> None:
    """Require indices within range."""
    wrong = value[(value < 0) | (value >= num_points)]
    if wrong.numel():
        raise ValueError(
            f"index holds {int(wrong[0])}, which is out of bounds: expected indices of points, 0 to "
            f"{num_points - 1}, each into its own cloud"
        )


def generator(value: object, start: int | Tensor) -> None:
    """Require a generator, given without a start index."""
    if not isinstance(value, torch.Generator):
        raise TypeError(f"generator has type {type(value).__name__}, expected a torch.Generator")
    if isinstance(start, Tensor) or start != 0:
        given = f"a tensor of shape {shape_of(start)}" if isinstance(start, Tensor) else start
        raise ValueError(
            f"start is {given} and a generator is given too, expected one of the two; "
            f"leave out start to let the generator draw it"
        )


def features_and_index(features: Tensor, index: Tensor, letters: str) -> None:
    """Require features of clouds and an index into them whose axes are those in ``letters``."""
    tensor("features", features)
    tensor("index", index)
    if features.ndim != 3:
        raise ValueError(f"features has shape {shape_of(features)}, expected (B, N, C), channels last")
    if index.dtype != torch.int64:
        raise TypeError(f"index has dtype {dtype_name(index.dtype)}, expected int64; use index.long()")
    same_device("features", features, "index", index)
    sizes = letters.split(", ")
    if index.ndim != len(sizes) or (sizes[-1] == "3" and index.shape[-1] != 3):
        raise ValueError(f"index has shape {shape_of(index)}, expected ({letters})")
    if index.shape[0] != features.shape[0]:
        raise ValueError(
            f"index has shape {shape_of(index)} and features has shape {shape_of(features)}, "
            f"expected ({letters}) and (B, N, C) with the same batch size B"
        )


def groups(value: Tensor) -> None:
    """Require groups of at least one neighbour, channels last."""
    floating("grouped", value)
    if value.ndim != 4 or value.shape[2] == 0:
        raise ValueError(
            f"grouped has shape {shape_of(value)}, expected (B, M, K, C), K at least 1, as group_points returns it"
        )


def neighborhoods(features: Tensor, index: Tensor) -> None:
    """Require features of clouds and an index of groups with at least one neighbour each."""
    floating("features", features)
    features_and_index(features, index, "B, M, K")
    if index.shape[2] == 0:
        raise ValueError(f"index has shape {shape_of(index)}, expected (B, M, K) with K at least 1")


def interpolation_weights(weights: Tensor, features: Tensor, index: Tensor) -> None:
    """Require floating-point features and one floating-point weight per index."""
    floating("features", features)
    floating("weights", weights)
    if weights.shape != index.shape:
        raise ValueError(
            f"weights has shape {shape_of(weights)}, expected {shape_of(index)}, the shape of index"
        )
    same_device("features", features, "weights", weights)


def references(latent_ref: Tensor, token_ref: Tensor) -> None:
    """Require non-empty references that can be compared: (B or 1, H, M, D) and (B, H, N, D)."""
    for name, value, letters in (("latent_ref", latent_ref, "M"), ("token_ref", token_ref, "N")):
        floating(name, value)
        if value.ndim != 4:
            raise ValueError(f"{name} has shape {shape_of(value)}, expected (B, H, {letters}, D)")
        if value.shape[2] == 0 or value.shape[3] == 0:
            raise ValueError(
                f"{name} has shape {shape_of(value)}, expected at least one element and one channel: "
                f"a softmax over nothing has no value"
            )
    same_kind_or_autocast("token_ref", token_ref, "latent_ref", latent_ref)
    same_heads = latent_ref.shape[1] == token_ref.shape[1] and latent_ref.shape[3] == token_ref.shape[3]
    if not same_heads or (latent_ref.shape[0] != 1 and latent_ref.shape[0] != token_ref.shape[0]):
        raise ValueError(
            f"latent_ref has shape {shape_of(latent_ref)} and token_ref has shape {shape_of(token_ref)}, "
            f"expected (B or 1, H, M, D) and (B, H, N, D)"
        )


def values(side: str, ref: Tensor, val: Tensor) -> None:
    """Require values of one ``side`` with the sizes of its references in all axes but the last."""
    floating(f"{side}_val", val)
    if val.ndim != 4 or val.shape[:3] != ref.shape[:3] or val.shape[3] == 0:
        raise ValueError(
            f"{side}_val has shape {shape_of(val)}, expected {shape_of(ref)}, the shape of {side}_ref, "
            f"where only the last size may differ"
        )
    same_kind_or_autocast(f"{side}_ref", ref, f"{side}_val", val)


def dropout(dropout_p: float) -> None:
    """Require a probability below one."""
    if isinstance(dropout_p, bool) or not isinstance(dropout_p, (int, float)):
        raise TypeError(f"dropout_p has type {type(dropout_p).__name__}, expected a float")
    if not 0 <= dropout_p < 1:
        raise ValueError(f"dropout_p is {dropout_p}, expected a probability from 0 to below 1")
