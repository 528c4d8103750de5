"""The wheel: what it carries, and that the harness runs from it in an empty folder, without a checkout."""

import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel built from this checkout."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def outside(wheel, tmp_path_factory):
    """Runs Python in an empty folder and an environment that holds the wheel but not this checkout."""
    place = tmp_path_factory.mktemp("outside")
    environment = venv.EnvBuilder(with_pip=False).ensure_directories(place / "env")
    venv.create(place / "env", with_pip=False)
    (site,) = Path(environment.env_dir).glob("lib/python*/site-packages")
    zipfile.ZipFile(wheel).extractall(site)
    # The libraries of this interpreter, without its editable install: .pth files there are not read again.
    (site / "libraries.pth").write_text(str(Path(np.__file__).parents[1]) + "\n")
    (empty := place / "empty").mkdir()
    variables = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}

    def run(*arguments):
        return subprocess.run(
            [environment.env_exe, *arguments],
            cwd=empty,
            env=variables,
            capture_output=True,
            text=True,
            timeout=300,
        )

    return run


def test_wheel_carries_code_cases_r_sources_recordings_and_data(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    holds = {prefix: sum(name.startswith(prefix) for name in names) for prefix in _EXPECTED}
    assert all(holds[prefix] >= least for prefix, least in _EXPECTED.items()), holds
    assert not [name for name in names if name.startswith(("tests/", "benchmarks/", "docs/", "r_reference/"))]


_EXPECTED = {
    "mmcore/": 10,
    "mmcore/_data/": 70,
    "parity/": 10,
    "parity/cases/": 25,
    "parity/_reference/R/": 10,
    "parity/_reference/recorded/hlmdiag-0.5.1/": 12,
    "parity/_reference/certified/": 10,
}


def test_packages_come_from_the_wheel_and_data_sets_load(outside):
    code = (
        "import mmcore, parity.resources as r; from mmcore.datasets import data_dir, load_dataset;"
        "print(data_dir().parent.name, r.reference_dir().name, len(load_dataset('InstEval')))"
    )
    done = outside("-c", code)
    assert done.stdout.split() == ["mmcore", "_reference", "73421"], done.stderr


def test_recorded_comparison_runs_outside_a_checkout(outside):
    done = outside("-m", "parity", "run", "dyestuff_reml", "--reference", "recorded", "--format", "json")
    assert done.returncode == 0, done.stdout + done.stderr
