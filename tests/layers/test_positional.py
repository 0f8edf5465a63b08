"""The sinusoidal encoding against its formula."""

import math

import pytest
import torch
from torch import nn

from bixt3d.layers import PointTokenizer, SinusoidalEncoding


def test_formula_by_hand():
    encode = SinusoidalEncoding(2, dims_per_axis=4, scale=3.0, temperature=100.0)
    out = encode(torch.tensor([0.5, -0.25]))
    expected = []
    for x in (0.5, -0.25):
        for period in (1.0, 10.0):  # 100 ** (0 / 4), 100 ** (2 / 4)
            expected += [math.sin(x * 3 / period), math.cos(x * 3 / period)]
    torch.testing.assert_close(out, torch.tensor(expected))
    assert encode.out_dim == 8


@pytest.mark.parametrize("axes", [1, 3, 6])
def test_periods_run_from_finest_to_coarsest(axes):
    scale, temperature = 20.0, 50.0
    encode = SinusoidalEncoding(axes, scale=scale, temperature=temperature)
    point = torch.zeros(1, axes)
    moved = point + 2 * math.pi / scale  # one whole finest period
    difference = (encode(moved) - encode(point)).view(axes, 16, 2).abs().amax(dim=(0, 2))
    assert difference[0] < 1e-5
    assert (difference[1:] > 1e-3).all()
    assert encode(point).shape == (1, 32 * axes)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_points_in_half_precision_are_encoded_in_float32(dtype):
    encode = SinusoidalEncoding(3, scale=100.0, temperature=100.0)
    points = torch.rand(5, 3, dtype=dtype)
    assert encode(points).dtype == torch.float32
    torch.testing.assert_close(encode(points), encode(points.float()), rtol=0, atol=0)


def test_points_in_float64_are_encoded_in_it():
    encode = SinusoidalEncoding(
        3, dims_per_axis=4, scale=25.0, temperature=100.0
    )  # its frequencies are exact
    points = torch.rand(5, 3, dtype=torch.float64)
    angle = (points[..., None] * torch.tensor([25.0, 2.5], dtype=torch.float64))[..., None]
    expected = torch.cat((angle.sin(), angle.cos()), dim=-1).flatten(1)
    torch.testing.assert_close(encode(points), expected, rtol=0, atol=1e-14)
    tokens = PointTokenizer(16)  # a map in float32 gets them in float32
    assert tokens(points[None]).dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_model_in_half_precision_keeps_its_frequencies(dtype):
    encode = SinusoidalEncoding(3, scale=25.0, temperature=100.0)
    points = torch.rand(5, 3)
    expected = encode(points)
    assert torch.equal(nn.Sequential(encode).to(dtype)(points), expected)


def test_frequencies_come_with_a_model_that_was_made_without_memory():
    with torch.device("meta"):
        encode = SinusoidalEncoding(3, scale=25.0, temperature=100.0)
    points = torch.rand(5, 3)
    expected = SinusoidalEncoding(3, scale=25.0, temperature=100.0)(points)
    assert torch.equal(encode.to_empty(device="cpu")(points), expected)


def test_tokenizer_takes_normals():
    assert PointTokenizer(16, in_channels=6)(torch.rand(2, 9, 6)).shape == (2, 9, 16)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_axes": 0}, "num_axes: expected at least 1, got 0"),
        ({"dims_per_axis": 7}, "dims_per_axis: expected an even number of at least 2, got 7"),
        ({"scale": 0.0}, "scale: expected a positive finite number, got 0.0"),
        ({"temperature": float("inf")}, "temperature: expected a positive finite number, got inf"),
    ],
)
def test_bad_settings(options, message):
    with pytest.raises(ValueError, match=message):
        SinusoidalEncoding(**options)


def test_wrong_number_of_axes():
    with pytest.raises(ValueError, match=r"expected 3 per point in the last axis, got shape \(2, 4\)"):
        SinusoidalEncoding(3)(torch.rand(2, 4))
