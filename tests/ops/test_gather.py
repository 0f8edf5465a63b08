import numpy as np
import pytest
import torch
from cases import every_backend
from torch.autograd import gradcheck, gradgradcheck

from bixt3d.ops import available_backends, gather_points, group_points

OPS = {"gather_points": gather_points, "group_points": group_points}
SHAPES = {"gather_points": (5,), "group_points": (4, 3)}
every_op_and_backend = pytest.mark.parametrize(
    ("op", "backend"), [(op, name) for op in OPS for name in every_backend(op).args[1]]
)


def inputs(op, dtype=torch.float32):
    generator = torch.Generator().manual_seed(4)
    features = torch.randn(2, 7, 3, generator=generator, dtype=torch.float64).to(dtype)
    index = torch.randint(7, (2, *SHAPES[op]), generator=generator)
    index[0].view(-1)[:3] = 6  # repeated rows: their gradients add up
    return features, index


@every_op_and_backend
@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64, torch.bool]
)
def test_copies_the_rows_named_by_the_index(op, backend, dtype):
    features, index = inputs(op)
    features = (features * 3).to(dtype)
    out = OPS[op](features, index, backend=backend)
    assert out.dtype == dtype
    clouds = np.arange(2).reshape(2, *[1] * (index.ndim - 1))
    expected = features.double().numpy()[clouds, index.numpy()]
    np.testing.assert_array_equal(out.double().numpy(), expected)


@every_op_and_backend
def test_inputs_need_not_be_contiguous(op, backend):
    features, index = inputs(op)
    odd = features.mT.contiguous().mT
    strided = torch.stack([index, index], dim=-1)[..., 0]
    assert not odd.is_contiguous()
    assert not strided.is_contiguous()
    assert torch.equal(OPS[op](odd, strided, backend=backend), OPS[op](features, index, backend=backend))


@every_op_and_backend
def test_differentiates_twice(op, backend):
    features, index = inputs(op, torch.float64)
    features.requires_grad_()

    def cubed(features):
        return OPS[op](features, index, backend=backend) ** 3

    assert gradcheck(cubed, features)
    assert gradgradcheck(cubed, features)


@every_op_and_backend
def test_gradients_of_repeated_rows_add_up(op, backend):
    features, index = inputs(op)
    features.requires_grad_()
    OPS[op](features, index, backend=backend).sum().backward()
    uses = torch.stack([torch.bincount(rows.flatten(), minlength=7) for rows in index])
    assert torch.equal(features.grad, uses[..., None].float().expand_as(features))


@every_op_and_backend
@pytest.mark.parametrize("num_clouds", [0, 2])
def test_an_empty_index_gives_no_rows(op, backend, num_clouds):
    features = torch.zeros(num_clouds, 4, 3)
    index = torch.zeros(num_clouds, 0, *SHAPES[op][1:], dtype=torch.int64)
    assert OPS[op](features, index, backend=backend).shape == (*index.shape, 3)


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize(("backend", "error"), [("cpu", ValueError), ("torch", RuntimeError)])
@pytest.mark.parametrize("wrong", [-1, 7, -(2**40), 2**40])
def test_an_index_outside_its_cloud_is_refused_on_the_cpu(op, backend, error, wrong):
    if available_backends(op)[backend]:
        pytest.skip(available_backends(op)[backend])
    features, index = inputs(op)
    index[0].view(-1)[0] = wrong
    with pytest.raises(error, match=rf"{wrong}\b.* is out of bounds"):
        OPS[op](features, index, backend=backend)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda f, i: gather_points(f[0], i),
            ValueError,
            r"features has shape \(7, 3\), expected \(B, N, C\)",
        ),
        (lambda f, i: gather_points(f[..., None], i), ValueError, r"features has shape \(2, 7, 3, 1\)"),
        (lambda f, i: gather_points(f, i[0]), ValueError, r"index has shape \(5,\), expected \(B, M\)"),
        (lambda f, i: group_points(f, i), ValueError, r"index has shape \(2, 5\), expected \(B, M, K\)"),
        (
            lambda f, i: gather_points(f, i[:1]),
            ValueError,
            r"index has shape \(1, 5\) and features has shape",
        ),
        (lambda f, i: gather_points(f, i.int()), TypeError, "index has dtype int32, expected int64; use"),
        (lambda f, i: gather_points(f, [0]), TypeError, "index has type list, expected a torch.Tensor"),
        (lambda f, i: gather_points(f, i.to("meta")), ValueError, "index is on meta, expected cpu"),
        (
            lambda f, i: gather_points(f, i, backend="x"),
            ValueError,
            "backend of gather_points 'x'; choose one",
        ),
    ],
)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call(*inputs("gather_points"))
