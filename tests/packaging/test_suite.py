"""The suite itself: what it says where R is absent."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
SUITE = """
import pytest

@pytest.mark.live
@pytest.mark.parametrize("i", range(3))
def test_live(i):
    raise AssertionError("must not be run")

def test_other():
    pass
"""


@pytest.mark.parametrize("parallel", [(), ("-n", "2")], ids=["one process", "two processes"])
def test_live_tests_that_are_not_run_are_counted(tmp_path, parallel):
    shutil.copy(TESTS / "conftest.py", tmp_path)
    shutil.copy(TESTS.parent / "pyproject.toml", tmp_path)
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_some.py").write_text(SUITE)
    without_r = os.environ | {"PATH": str(tmp_path)}
    command = [sys.executable, "-m", "pytest", "-q", *parallel, "tests"]
    done = subprocess.run(command, cwd=tmp_path, env=without_r, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout
    assert "3 live tests not run" in done.stdout
    assert "1 passed" in done.stdout
