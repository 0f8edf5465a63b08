"""Every Triton kernel compiled for devices that need not be there: it compiles, fits and spills no registers."""

import os
import re
import subprocess
from pathlib import Path

import pytest
import torch

from bixt3d.ops.backends import triton_attention, triton_features, triton_points, triton_runtime

triton = pytest.importorskip(
    "triton", minversion="3.6", reason="needs triton 3.6 or newer"
)  # ASTSource as below
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(triton_runtime.interpreted(), reason="the kernels are interpreted here"),
]
SHARED_BYTES = 101_376  # what a program may have on the smallest devices of compute capability 8
SPILLED_BYTES = 32  # a thread; nearest_k with 32 neighbours needs 24
POINTERS = {
    torch.float16: "*fp16", torch.bfloat16: "*bf16", torch.float32: "*fp32", torch.float64: "*fp64",
    torch.int32: "*i32", torch.int64: "*i64", torch.uint8: "*u8",
}  # fmt: skip


def compile_kernel(capability, kernel, arguments, options):
    """Compile for these arguments as a launch would, and return bytes spilled by a thread and shared memory."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    signature, constants, aligned = {}, {}, {}
    for place, parameter in enumerate(kernel.params):
        name = parameter.name
        value = arguments[place] if place < len(arguments) else options.pop(name)
        if parameter.is_constexpr or value is None or (isinstance(value, int) and value == 1):
            signature[name], constants[(place,)] = "constexpr", value
        elif isinstance(value, torch.Tensor):
            signature[name], aligned[(place,)] = POINTERS[value.dtype], [["tt.divisibility", 16]]
        elif isinstance(value, float):
            signature[name] = "fp32"
        else:
            signature[name] = "i32"
            if value % 16 == 0:
                aligned[(place,)] = [["tt.divisibility", 16]]
    source = ASTSource(kernel, signature, constants, aligned)
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    binary = Path(os.environ["TRITON_CACHE_DIR"]) / "kernel.cubin"
    binary.write_bytes(compiled.asm["cubin"])
    usage = subprocess.run(
        [tool, "--dump-resource-usage", binary], capture_output=True, text=True, check=True
    )
    return int(re.search(r"STACK:(\d+)", usage.stdout)[1]), compiled.metadata.shared


@pytest.fixture(params=[80, 90], ids=["sm_80", "sm_90"])
def seen(request, monkeypatch, tmp_path):
    """The names of the kernels that were launched: here that means compiled and checked."""
    names = set()

    def launch(kernel, grid, *arguments, **options):
        spilled, shared = compile_kernel(request.param, kernel, arguments, dict(options))
        what = f"{kernel.__name__} {options}"
        assert spilled <= SPILLED_BYTES, f"{what}: {spilled} bytes spilled"
        assert shared <= SHARED_BYTES, f"{what}: {shared} bytes of shared memory"
        names.add(kernel.__name__)

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(triton_runtime, "multiplies_from_shared_memory", lambda device: request.param == 90)
    for module in (triton_attention, triton_features, triton_points):
        monkeypatch.setattr(module, "launch", launch)
        monkeypatch.setattr(module, "readable", lambda x: x, raising=False)
    return names


def test_kernels_on_points(seen):
    start = torch.zeros(1, dtype=torch.int64)
    for dtype, sizes in ((torch.float32, (192, 1024, 2048, 8192, 8193)), (torch.float64, (1024, 4096, 4097))):
        for size in sizes:
            triton_points.farthest_point_sample(torch.rand(1, size, 3, dtype=dtype), 512, start)
        query, points = torch.rand(1, 512, 3, dtype=dtype), torch.rand(1, 1024, 3, dtype=dtype)
        triton_points.three_nn(query, points)
        triton_points.ball_query(query, points, 0.2, 32)
    for k in (4, 24, 32, 128):
        triton_points.knn(torch.rand(1, 512, 3), torch.rand(1, 1024, 3), k)
    assert seen == {
        "farthest_in_registers",
        "farthest_in_memory",
        "nearest_three",
        "first_in_ball",
        "nearest_k",
    }


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_kernels_on_features(seen, dtype):
    index = torch.zeros(1, 512, 3, dtype=torch.int64)
    for channels in (3, 64, 192):
        features = torch.rand(1, 1024, channels).to(dtype).requires_grad_()
        weights = torch.rand(1, 512, 3).to(dtype).requires_grad_()
        triton_features.group_points(features, index).sum().backward()
        triton_features.three_interpolate(features, index, weights).sum().backward()
    assert seen == {"copy_rows", "sum_uses", "interpolate_rows", "multiply_rows"}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("latents", [16, 64, 128])
def test_kernels_of_attention(seen, latents, dtype):
    width = 32
    sides = [(1, 2, latents, width)] * 2 + [(1, 2, 1024, width)] * 2
    inputs = [torch.rand(side).to(dtype).requires_grad_() for side in sides]
    results = triton_attention.attend(*inputs, width**-0.5, 0.0, False)
    (results[0].sum() + results[1].sum()).backward()
    assert seen == {"attend", "attend_backward", "join"}
