"""What the documentation shows, runs: Python blocks of README.md and docs/*.md, and doctests of the modules.

The blocks of one file run in order, as one program in a fresh interpreter, so that one file's changes (a new
activation, say) meet no other's. Line numbers in a traceback are those of the file. A block that must not run is
marked with another language (text, bash, pycon).
"""

import doctest
import importlib
import os
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import fastmlp
from fastmlp import kernels

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def program(page):
    """The page's Python blocks on the lines they have in the page, everything else blank."""
    text = page.read_text(encoding="utf-8")
    lines = [""] * text.count("\n")
    for block in BLOCK.finditer(text):
        first = text.count("\n", 0, block.start(1))
        code = block[1].splitlines()
        lines[first : first + len(code)] = code
    return "\n".join(lines)


@pytest.mark.parametrize("page", [p for p in PAGES if program(p).strip()], ids=lambda page: page.name)
def test_code_blocks_run(page, tmp_path):
    run = "import sys; exec(compile(sys.stdin.read(), sys.argv[1], 'exec'), {'__name__': '__main__'})"
    done = subprocess.run(
        [sys.executable, "-c", run, str(page)],
        input=program(page),
        cwd=tmp_path,
        env=os.environ | {"PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        encoding="utf-8",
    )
    assert done.returncode == 0, f"{page.name} fails:\n{done.stdout}\n{done.stderr}"


def test_readme_has_code():
    assert "MLPClassifier" in program(ROOT / "README.md")


def test_blocks_keep_their_lines(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# Title\n```python\na = 1\n```\ntext\n```bash\nls\n```\n\n```python\nb = a\n```\n")
    assert program(page).split("\n") == ["", "", "a = 1", *[""] * 7, "b = a", ""]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def modules():
    """Every module of the package; fastmlp.kernels lies in a folder of its own in a checkout."""
    names = {"fastmlp", "fastmlp.bench.quick", "fastmlp.kernels"}
    for package in (fastmlp, kernels):
        names |= {found.name for found in pkgutil.iter_modules(package.__path__, f"{package.__name__}.")}
    return sorted(names)


@pytest.mark.parametrize("name", modules())
def test_doctests(name):
    module = importlib.import_module(name)
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    failed, _ = doctest.testmod(module, optionflags=flags)
    assert failed == 0
