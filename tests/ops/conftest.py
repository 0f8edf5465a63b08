import re

import pytest
import torch

from bixt3d.ops.backends import cpu, cpu_library

# These run on everything; were one of them to refuse an input, that is a failure.
MUST_RUN = {"torch", "sdpa", "reference"}
# What "cpu" may say where it was compiled: that a dtype is not one of its own.
ANOTHER_DTYPE = re.compile(r"'cpu' takes [\w, ]+, not \w+;")


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem):
    """Skip a test whose backend says that it cannot run, with the reason it gives."""
    try:
        return (yield)
    except NotImplementedError as error:
        parameters = pyfuncitem.callspec.params if hasattr(pyfuncitem, "callspec") else {}
        backend = parameters.get("backend", "reference")
        compiled = backend == "cpu" and cpu_library.why_not() is None
        if backend in MUST_RUN or (compiled and not ANOTHER_DTYPE.search(str(error))):
            raise
        pytest.skip(str(error))


@pytest.fixture
def library():
    """The compiled library; skips where there is none."""
    loaded, reason = cpu_library.load()
    if loaded is None:
        pytest.skip(reason)
    return loaded


@pytest.fixture(params=[0, 1, 2], ids=["portable", "avx2", "avx512"])
def level(request, monkeypatch, library):
    """Each instruction set that the compiled library has and this machine too."""
    if library.bixt3d_level() < request.param:
        pytest.skip("this machine lacks the instructions")
    monkeypatch.setattr(cpu, "LEVEL", request.param)


@pytest.fixture
def threads():
    """A function that sets the number of threads, which is put back afterwards."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)
