"""The processes of a run: devices that there are, and what a scheduler started."""

import signal
import sys

import pytest
import torch

from bixt3d.training import devices
from bixt3d.training.devices import make_fabric
from bixt3d.training.settings import TrainSettings
from bixt3d.training.signals import STOPS


@pytest.mark.parametrize("wanted", [True, False])
def test_the_allocator_is_set_only_where_it_is_asked_for(monkeypatch, wanted):
    calls = []
    monkeypatch.setattr(devices, "keep_freed_memory", lambda: calls.append(1))
    for name in ("LOCAL_WORLD_SIZE", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    fabric = make_fabric(TrainSettings(accelerator="cpu", precision="bf16-mixed", keep_freed_memory=wanted))
    assert bool(calls) == wanted
    assert (fabric.device.type, fabric.world_size) == ("cpu", 1)
    with fabric.autocast():
        assert torch.nn.Linear(2, 2)(torch.ones(1, 2)).dtype == torch.bfloat16


def test_a_device_that_there_is_not_is_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match=r"train\.accelerator: expected a CUDA device, but torch sees none"):
        make_fabric(TrainSettings(accelerator="cuda"))
    with pytest.raises(ValueError, match=r"train\.precision: 16-mixed needs a CUDA device"):
        make_fabric(TrainSettings(accelerator="cpu", precision="16-mixed"))


def test_srun_of_several_tasks_is_told_what_to_do_instead(monkeypatch):
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "4")
    with pytest.raises(
        ValueError, match=r"^srun: it started this command 4 times.*--ntasks-per-node=1 torchrun"
    ):
        make_fabric(TrainSettings(accelerator="cpu"))


def test_a_process_of_a_large_job_is_one_process(monkeypatch):
    """What SLURM says of the job, such as of a batch script for eight tasks, is not what runs here."""
    for name in ("LOCAL_RANK", "LOCAL_WORLD_SIZE", "WORLD_SIZE", "RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"JOB_NAME": "train", "NTASKS": "8", "PROCID": "3", "NODELIST": "node[1-2]"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    fabric = make_fabric(TrainSettings(accelerator="cpu"))
    assert (fabric.world_size, fabric.global_rank, fabric.is_global_zero) == (1, 0, True)


def test_torchrun_is_given_nothing_that_the_oldest_torch_does_not_know(monkeypatch):
    from torch.distributed import run

    given = []
    monkeypatch.setattr(run, "run", given.append)
    monkeypatch.setattr(run, "parse_args", list)
    before = {number: signal.getsignal(number) for number in STOPS}
    try:
        assert devices.run_again_under_torchrun(3) == 0
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert [w for w in given[0] if w.startswith("--")][:3] == [
        "--standalone",
        "--nproc_per_node=3",
        "--no-python",
    ]
    assert given[0][3] == sys.executable
