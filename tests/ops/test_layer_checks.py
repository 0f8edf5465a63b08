"""What ops that are a part of a layer say of wrong input: their parameters, and what may be given besides."""

import pytest
import torch

from bixt3d.ops import residual_mlp, stream_attention

# two clouds of seven rows of six channels; eight hidden channels; three heads of width five, four latents
MLP = [(2, 7, 6), (6,), (6,), (8, 6), (8,), (6, 8), (6,)]
STREAM = [(2, 3, 4, 5), (2, 3, 4, 5), (2, 7, 6), (6,), (6,), (30, 6), (30,), (6, 15), (6,)]


@pytest.mark.parametrize(
    ("place", "change", "error", "message"),
    [
        (0, lambda x: x[..., :5], ValueError, r"norm_weight has shape \(6,\), expected \(5,\) for x"),
        (0, lambda x: x.sum(), ValueError, r"x has shape \(\), expected \(..., C\)"),
        (0, lambda x: x[..., :0], ValueError, "with at least one channel"),
        (0, lambda x: x.long(), TypeError, "x has dtype int64"),
        (1, lambda x: x[:5], ValueError, r"norm_weight has shape \(5,\), expected \(6,\)"),
        (2, lambda x: x[:5], ValueError, r"norm_bias has shape \(5,\), expected \(6,\)"),
        (3, lambda x: x.T, ValueError, r"weight1 has shape \(6, 8\), expected \(6, 6\)"),
        (3, lambda x: x.sum(), ValueError, r"weight1 has shape \(\), expected \(0, 6\)"),
        (3, lambda x: None, TypeError, "weight1 has type NoneType"),
        (4, lambda x: x[:5], ValueError, r"bias1 has shape \(5,\), expected \(8,\)"),
        (5, lambda x: x[:5], ValueError, r"weight2 has shape \(5, 8\), expected \(6, 8\)"),
        (5, lambda x: x.to("meta"), ValueError, "weight2 is on meta, expected cpu, the device of x"),
        (5, lambda x: x.double(), TypeError, "weight2 has dtype float64, expected float32, the dtype of x"),
        (6, lambda x: x[:5], ValueError, r"bias2 has shape \(5,\), expected \(6,\)"),
        (6, lambda x: None, TypeError, "bias2 has type NoneType"),
    ],
)
def test_bad_input_of_an_mlp_is_named(place, change, error, message):
    args = [torch.rand(shape) for shape in MLP]
    args[place] = change(args[place])
    with pytest.raises(error, match=message):
        residual_mlp(*args)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"scale": torch.ones(3)}, ValueError, r"scale has shape \(3,\), expected \(B,\)"),
        ({"scale": torch.ones(2, requires_grad=True)}, ValueError, "scale requires a gradient"),
        ({"scale": torch.ones(2).long()}, TypeError, "scale has dtype int64"),
        (
            {"scale": torch.ones(2, device="meta")},
            ValueError,
            "scale is on meta, expected cpu, the device of x",
        ),
        ({"scale": 0.5}, TypeError, "scale has type float"),
        ({"update": torch.ones(2, 7, 1)}, ValueError, r"update has shape \(2, 7, 1\), expected \(2, 7, 6\)"),
        (
            {"update": torch.ones(2, 7, 6).double()},
            TypeError,
            "update has dtype float64, expected float32, the",
        ),
        ({"update": torch.ones(2, 7, 6, device="meta")}, ValueError, "update is on meta, expected cpu"),
        ({"update": 1.0}, TypeError, "update has type float"),
        ({"out": torch.ones(2, 7, 1)}, ValueError, r"out has shape \(2, 7, 1\), expected \(2, 7, 6\)"),
        ({"out": torch.ones(2, 6, 7).mT}, ValueError, "out is not contiguous"),
        ({"out": torch.ones(2, 7, 6).half()}, TypeError, "out has dtype float16"),
    ],
)
def test_a_bad_option_of_an_mlp_is_named(options, error, message):
    with pytest.raises(error, match=message):
        residual_mlp(*map(torch.rand, MLP), **options)


@pytest.mark.parametrize("place", range(len(MLP) + 1))
def test_memory_that_is_given_records_no_gradient(place):
    """Of none of the parameters, nor of the update, which comes last."""
    args = [torch.rand(shape) for shape in (*MLP, MLP[0])]
    args[place].requires_grad_()
    *args, update = args
    with pytest.raises(ValueError, match="out is given and an input requires a gradient"):
        residual_mlp(*args, update=update, out=torch.empty(MLP[0]))
    with torch.no_grad():
        residual_mlp(*args, update=update, out=torch.empty(MLP[0]))


def test_under_autocast_parameters_may_be_of_another_dtype():
    x, *parameters = map(torch.rand, MLP)
    latents, values, tokens, *maps = map(torch.rand, STREAM)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.isfinite(residual_mlp(x.bfloat16(), *parameters)).all()
        for found in stream_attention(latents, values, tokens.bfloat16(), *maps):
            assert torch.isfinite(found).all()
    with pytest.raises(TypeError, match="norm_weight has dtype float32, expected bfloat16, the dtype of x"):
        residual_mlp(x.bfloat16(), *parameters)


def test_a_factor_needs_clouds():
    args = [torch.rand(shape) for shape in MLP]
    args[0] = args[0][0, 0]
    with pytest.raises(ValueError, match=r"scale has shape \(6,\), .* first size of x, of shape \(6,\)"):
        residual_mlp(*args, scale=torch.ones(6))


@pytest.mark.parametrize(
    ("place", "change", "error", "message"),
    [
        (0, lambda x: x[0], ValueError, r"latent_ref has shape \(3, 4, 5\), expected \(B, H, M, D\)"),
        (0, lambda x: x.repeat(2, 1, 1, 1), ValueError, r"for tokens of shape \(2, 7, 6\)"),
        (0, lambda x: x[:, :, :0], ValueError, "none of them 0"),
        (
            0,
            lambda x: x.double(),
            TypeError,
            "latent_ref has dtype float64, expected float32, the dtype of tokens",
        ),
        (0, lambda x: x.long(), TypeError, "latent_ref has dtype int64, expected float16"),
        (0, lambda x: x.to("meta"), ValueError, "latent_ref is on meta, expected cpu, the device of tokens"),
        (1, lambda x: x[:, :, :2], ValueError, "latent_val has shape"),
        (2, lambda x: x[0], ValueError, r"tokens has shape \(7, 6\), expected \(B, N, C\)"),
        (2, lambda x: x[:, :0], ValueError, "with at least one token"),
        (2, lambda x: x[..., :0], ValueError, "with at least one token and channel"),
        (2, lambda x: x.long(), TypeError, "tokens has dtype int64"),
        (3, lambda x: x[:5], ValueError, r"norm_weight has shape \(5,\), expected \(6,\)"),
        (4, lambda x: x[:5], ValueError, r"norm_bias has shape \(5,\), expected \(6,\)"),
        (5, lambda x: x.T, ValueError, r"weight has shape \(6, 30\), expected \(30, 6\)"),
        (6, lambda x: x[:5], ValueError, r"^bias has shape \(5,\), expected \(30,\)"),
        (6, lambda x: x.double(), TypeError, "bias has dtype float64, expected float32, the dtype of tokens"),
        (7, lambda x: x[:5], ValueError, r"out_weight has shape \(5, 15\), expected \(6, 15\)"),
        (7, lambda x: None, TypeError, "out_weight has type NoneType"),
        (8, lambda x: x[:5], ValueError, r"out_bias has shape \(5,\), expected \(6,\)"),
    ],
)
def test_bad_input_of_a_stream_is_named(place, change, error, message):
    args = [torch.rand(shape) for shape in STREAM]
    args[place] = change(args[place])
    with pytest.raises(error, match=message):
        stream_attention(*args)
