"""Compile the library of the CPU backend; everything else stands in pyproject.toml.

The library has a plain C interface and is loaded with ctypes, so it belongs to no version of Python or torch and
the wheel is tagged ``py3-none-<platform>``. The kernels are compiled once for each instruction set, which
setuptools cannot be told without code. Where compiling fails the installation goes on without the library, and
``bixt3d.ops.available_backends`` says so.
"""

from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

# The names of kernels_* in csrc/kernels.h; the portable build comes with what the compiler takes for granted.
AVX512 = ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mprefer-vector-width=512"]
# gcc's own header of AVX-512 warns of itself (its bug 105593), thousands of lines; our lines warn in the other builds.
AVX512 += ["-Wno-uninitialized", "-Wno-maybe-uninitialized"]
X86 = {
    "portable": [],
    "avx2": ["-mavx2", "-mfma", "-mbmi", "-mpopcnt"],
    "avx512": [*AVX512, "-mbmi", "-mpopcnt"],
}
# Whether products may be fused into sums. In distances they may not: these would round differently from those of
# the other backends, and with them which of two points is the nearer.
KERNELS = {
    "kernels": ("csrc/kernels.cpp", "-ffp-contract=off"),
    "attention": ("csrc/attention.cpp", "-ffp-contract=fast"),
    "mlp": ("csrc/mlp.cpp", "-ffp-contract=fast"),
}
ONCE = [
    "csrc/api.cpp",
    "csrc/attention_api.cpp",
    "csrc/mlp_api.cpp",
    "csrc/rows_api.cpp",
    "csrc/level.cpp",
    "csrc/pool.cpp",
]
FLAGS = [
    "-std=c++17",
    "-O3",
    "-g0",
    "-fno-math-errno",
    "-fvisibility=hidden",
    "-pthread",
]


class BuildLibrary(build_ext):
    """Compile the kernels several times with flags of their own, and link a library without an ABI tag."""

    def get_ext_filename(self, fullname: str) -> str:
        """Name the library the same for every Python version."""
        return str(Path(*fullname.split("."))) + ".so"

    def build_extension(self, ext: Extension) -> None:
        """Compile and link; an error here only leaves the library out, since the extension is optional."""
        x86 = self.plat_name.endswith(("x86_64", "amd64"))
        macros = [("BIXT3D_X86", "1")] if x86 else []
        common = {"include_dirs": ["csrc"], "depends": ext.depends}
        objects = self.compiler.compile(
            ONCE, output_dir=self.build_temp, macros=macros, extra_postargs=FLAGS, **common
        )
        for name, flags in (X86 if x86 else {"portable": []}).items():
            for table, (source, contraction) in KERNELS.items():
                objects += self.compiler.compile(
                    [source],
                    output_dir=str(Path(self.build_temp) / name),
                    macros=[*macros, (f"BIXT3D_{table.upper()}", f"{table}_{name}")],
                    extra_postargs=[*FLAGS, contraction, *flags],
                    **common,
                )
        self.compiler.link_shared_object(
            objects, self.get_ext_fullpath(ext.name), extra_postargs=["-pthread", "-ldl"], target_lang="c++"
        )


class WheelForAnyPython(bdist_wheel):
    """Tag the wheel for the platform alone."""

    def get_tag(self) -> tuple[str, str, str]:
        """Keep the platform, drop the versions of Python and its ABI."""
        return "py3", "none", super().get_tag()[2]


setup(
    ext_modules=[
        Extension(
            "bixt3d.ops.backends._cpu",
            sources=[*ONCE, *(source for source, _ in KERNELS.values())],
            depends=sorted(str(path) for path in Path("csrc").glob("*.h")),
            language="c++",
            optional=True,
        )
    ],
    cmdclass={"build_ext": BuildLibrary, "bdist_wheel": WheelForAnyPython},
)
