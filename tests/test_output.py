"""What a script prints never ends its work, whatever the output is."""

import os
import subprocess
import sys

import pytest
from places import PATIENCE, ROOT


def script(tmp_path, code, **environment):
    """Start a script whose work is ``code``."""
    body = "".join(f"    {line}\n" for line in code.splitlines())
    path = tmp_path / "script.py"
    path.write_text(
        f"import sys\nfrom bixt3d.errors import report_errors\ndef work():\n{body}report_errors(work)\n"
    )
    return subprocess.Popen(
        [sys.executable, str(path)],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


RICH = "from rich.console import Console; Console().print('4 · Ψ')"


@pytest.mark.parametrize(
    ("encoding", "said"),
    [("ascii", b"4 \\xb7 \\u03a8"), ("cp1252", b"4 \xb7 \\u03a8"), ("utf-8", "4 · Ψ".encode())],
)
@pytest.mark.parametrize("code", ["print('4 · Ψ')", RICH])
def test_what_the_output_cannot_encode_is_escaped(tmp_path, code, encoding, said):
    process = script(tmp_path, code, PYTHONIOENCODING=encoding)
    out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out.strip(), err) == (0, said, b"")


@pytest.mark.parametrize("code", ["print('4', flush=True)", "print('4')", RICH])
def test_nobody_has_to_listen(tmp_path, code):
    """As where ``| head -1`` has seen enough."""
    process = script(tmp_path, f"{code}\n" * 3 + f"open({str(tmp_path / 'x')!r}, 'w')")
    process.stdout.close()
    assert process.wait(PATIENCE) == 0
    assert process.stderr.read() == b""
    process.stderr.close()
    assert (tmp_path / "x").exists()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="not on this platform")
def test_a_full_disk_under_the_log_ends_nothing(tmp_path):
    path = tmp_path / "script.py"
    path.write_text(
        "from bixt3d.errors import report_errors\nreport_errors(lambda: print('x' * 99999, flush=True))\n"
    )
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, str(path)],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=PATIENCE,
            check=False,
        )
    assert (done.returncode, done.stderr) == (0, b"")
