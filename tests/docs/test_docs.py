"""Documentation is run: Python blocks in order, page by page, and what they print is what the page says.

A `python` block that is followed by a `text` block must print exactly that. In `console` blocks, make targets
must exist, and lines that begin with `$ parity` are run and must end with exit code 0.
"""

import contextlib
import io
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]+\]\(([^)#:\s]+)(?:#[^)]*)?\)")


def blocks(page):
    return _BLOCK.findall(page.read_text(encoding="utf-8"))


def with_blocks(kind):
    return [pytest.param(page, id=page.name) for page in PAGES if any(k == kind for k, _ in blocks(page))]


def lines_of(text):
    return [line.rstrip() for line in text.strip().splitlines()]


@pytest.mark.parametrize("page", with_blocks("python"))
def test_python_blocks_run_and_print_what_the_page_says(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    monkeypatch.syspath_prepend(page.parent)
    namespace = {"__name__": page.stem}
    found = blocks(page)
    for i, (kind, code) in enumerate(found):
        if kind != "python":
            continue
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(code, f"{page.name}, block {i + 1}", "exec"), namespace)
        if i + 1 < len(found) and found[i + 1][0] == "text":
            assert lines_of(printed.getvalue()) == lines_of(found[i + 1][1])


@pytest.mark.parametrize("page", with_blocks("console"))
def test_console_blocks_name_targets_that_exist_and_commands_that_run(page, tmp_path):
    targets = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for kind, text in blocks(page):
        for line in text.splitlines() if kind == "console" else ():
            words = shlex.split(line, comments=True)
            if words[:2] == ["$", "make"]:
                assert set(words[2:]) <= targets, line
            if words[:2] == ["$", "parity"]:
                command = [sys.executable, "-m", "parity", *words[2:]]
                done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
                assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    missing = [link for link in _LINK.findall(page.read_text()) if not (page.parent / link).exists()]
    assert not missing


def test_generated_pages_are_up_to_date():
    command = [sys.executable, "scripts/make_docs.py", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
