"""Every command and every public function on a device that is not the CPU, for machines that have none."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent


def test_the_work_runs_on_another_device():
    """In a process of its own: a device that torch was told of is there for all that come after."""
    if shutil.which("c++") is None:
        pytest.skip("the stand-in device needs a C++ compiler")
    # The first build takes half a minute; ninja is where the interpreter is, which need not be on the path.
    places = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    built = TESTS.parent / "build" / "torch_extensions"
    # Of a build that was killed: torch would wait for it.
    (built / "pretend_device_ext" / "lock").unlink(missing_ok=True)
    # Types are checked in all other tests; here that takes a tenth of the time.
    environment = os.environ | {"TORCH_EXTENSIONS_DIR": str(built), "PATH": places, "JAXTYPING_DISABLE": "1"}
    files = map(str, sorted((TESTS / "other_device").glob("device_*.py")))
    words = [sys.executable, "-m", "pytest", "-p", "no:xdist", "-q", "--tb=short", *files]
    done = subprocess.run(words, cwd=TESTS.parent, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
