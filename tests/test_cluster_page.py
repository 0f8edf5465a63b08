"""The batch scripts of docs/cluster.md, with stand-ins for SLURM: what they start, and when they queue again."""

import os
import re
import shutil
import subprocess

import pytest
from places import ROOT

SCRIPTS = re.findall(
    r"```sh\n(#!/bin/bash\n.*?)```", (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8"), re.S
)
SRUN = """#!/bin/bash
echo "$@" > called
for word in "$@"; do [[ $word = --output=* ]] && echo "$SAID" > "${word#--output=}"; done
exit $STATUS
"""
SCONTROL = """#!/bin/bash
if [ "$1" = show ]; then printf "node1\\nnode2\\n"; else echo "$@" > requeued; fi
"""

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")


@pytest.fixture
def submit(tmp_path):
    """Run a script of the page where ``srun`` says and returns what it is told to; returns its status and files."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "logs").mkdir()
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)

    def run(script, status, said=""):
        (tmp_path / "requeued").unlink(missing_ok=True)
        environment = {
            **os.environ,
            "PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "SLURM_JOB_ID": "77",
            "SLURM_ARRAY_TASK_ID": "3",
            "SLURM_JOB_NODELIST": "node[1-2]",
            "SLURM_NNODES": "2",
            "HOME": "/home/me",
            "SCRATCH": "/scratch/me",
            "STATUS": str(status),
            "SAID": said,
        }
        done = subprocess.run(["bash", "-c", script], cwd=tmp_path, env=environment, timeout=60, check=False)
        requeued = tmp_path / "requeued"
        words = (tmp_path / "called").read_text().split()
        return done.returncode, words, requeued.read_text().strip() if requeued.exists() else None

    return run


def test_both_scripts_start_a_config_that_composes(submit, compose):
    assert len(SCRIPTS) == 2
    for script, folder in zip(SCRIPTS, ("hierarchy-seed3", "hierarchy"), strict=True):
        _, words, _ = submit(script, 0)
        at = words.index("scripts/train_cls.py")
        config = compose(ROOT / words[at + 1], *words[at + 2 :])
        assert config["run_dir"] == f"/scratch/me/runs/{folder}"
        assert config["train"]["resume"] == "auto"
    assert "--rdzv_endpoint=node1:29500" in words


@pytest.mark.parametrize(
    ("status", "again"), [(0, None), (1, None), (137, None), (138, "requeue 77"), (143, "requeue 77")]
)
def test_an_array_task_that_saved_is_queued_again(submit, status, again):
    assert submit(SCRIPTS[0], status)[::2] == (status, again)


@pytest.mark.parametrize(
    ("said", "again"), [("stopped and saved at step 7", "requeue 77"), ("error: no", None)]
)
def test_several_nodes_that_saved_are_queued_again(submit, said, again):
    assert submit(SCRIPTS[1], 1, said)[::2] == (1, again)
