"""What the documentation shows, runs: Python blocks of README.md and docs/*.md, and doctests of the modules.

The blocks of one file run in order, as one program in a fresh interpreter, so that one file's changes (a new
activation, say) meet no other's. Line numbers in a traceback are those of the file. A block that must not run is
marked with another language (text, bash, pycon).

``python tests/test_docs.py docs/experiments.md`` runs a page in the current folder. From the root of a checkout that
draws its pictures anew; as a test it draws them into a temporary one.
"""

import ast
import doctest
import importlib
import os
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest
from sklearn import neural_network

import fastmlp
from fastmlp import MLPClassifier, MLPRegressor, kernels, optimizers
from fastmlp.initialization import INITIALIZERS
from fastmlp.kernels import formulas
from fastmlp.schedules import SCHEDULES
from fastmlp.targets import CLASSIFIER_LOSSES, REGRESSOR_LOSSES

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PICTURE = re.compile(r"^!\[[^]]+\]\(([^)]+)\)$", re.MULTILINE)


def program(page):
    """The page's Python blocks on the lines they have in the page, everything else blank."""
    text = page.read_text(encoding="utf-8")
    lines = [""] * text.count("\n")
    for block in BLOCK.finditer(text):
        first = text.count("\n", 0, block.start(1))
        code = block[1].splitlines()
        lines[first : first + len(code)] = code
    return "\n".join(lines)


def run(page, **options):
    """Run the page's blocks in a fresh interpreter."""
    execute = "import sys; exec(compile(sys.stdin.read(), sys.argv[1], 'exec'), {'__name__': '__main__'})"
    return subprocess.run(
        [sys.executable, "-c", execute, str(page)],
        input=program(page),
        env=os.environ | {"PYTHONIOENCODING": "utf-8"},
        encoding="utf-8",
        **options,
    )


@pytest.mark.parametrize("page", [p for p in PAGES if program(p).strip()], ids=lambda page: page.name)
def test_code_blocks_run(page, tmp_path):
    done = run(page, cwd=tmp_path, capture_output=True)
    assert done.returncode == 0, f"{page.name} fails:\n{done.stdout}\n{done.stderr}"
    # a page draws the pictures that it shows, no more and no fewer
    drawn = {f"images/{path.name}" for path in (tmp_path / "docs" / "images").glob("*")}
    assert drawn == set(PICTURE.findall(page.read_text(encoding="utf-8")))


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


# --- the tables of options.md against those that the package goes by --------------------------------------------------


def table(first_cell):
    """The table of options.md whose header begins with this cell: names -> the cells after, as {parameter: default}."""
    rows = (ROOT / "docs" / "options.md").read_text(encoding="utf-8").split(f"\n| {first_cell} |", 1)[1]
    rows = rows.split("\n\n")[0].splitlines()[2:]
    return {row.split("`")[1]: dict(re.findall(r"`(\w+)=([^`]+)`", row)) for row in rows}


def parameters_of(rows):
    return {name: dict(row.parameters) for name, row in rows.items()}


def defaults(solver, names):
    """What a solver makes of parameters that are left alone."""
    given = MLPClassifier().get_params()
    return {name: optimizers.DEFAULTS.get(name, {}).get(solver, given[name]) for name in names}


def parsed(parameters):
    return {name: ast.literal_eval(value) for name, value in parameters.items()}


@pytest.mark.parametrize(
    ("header", "rows"),
    [
        ("name | f(z)", parameters_of({name: row for name, row in formulas.ACTIVATIONS.items() if row.hidden})),
        (
            "`loss=` | of a row",
            parameters_of({name: formulas.LOSSES[rows[0]] for name, rows in CLASSIFIER_LOSSES.items()}),
        ),
        ("`loss=` | of an output", parameters_of({name: formulas.LOSSES[name] for name in REGRESSOR_LOSSES})),
        ("name | rate", parameters_of(SCHEDULES)),
        ("`init=`", {name: {} for name in INITIALIZERS}),
    ],
)
def test_options_page_has_every_row(header, rows):
    shown = {name: parsed(parameters) for name, parameters in table(header).items()}
    assert shown == rows


def test_options_page_has_every_solver():
    shown = {name: parsed(parameters) for name, parameters in table("`solver=`").items()}
    assert shown.keys() == {"lbfgs", *optimizers.STOCHASTIC_SOLVERS}
    for solver, parameters in shown.items():
        assert parameters == defaults(solver, parameters)


@pytest.mark.parametrize("estimator", [MLPClassifier, MLPRegressor])
def test_options_page_names_every_new_parameter(estimator):
    text = (ROOT / "docs" / "options.md").read_text(encoding="utf-8")
    new = estimator().get_params().keys() - getattr(neural_network, estimator.__name__)().get_params().keys()
    assert [name for name in sorted(new - {"backend", "n_jobs"}) if name not in text] == []


@pytest.mark.parametrize("picture", sorted((ROOT / "docs" / "images").glob("*")), ids=lambda path: path.name)
def test_pictures_are_shown_and_small(picture):
    assert any(f"images/{picture.name}" in page.read_text(encoding="utf-8") for page in PAGES)
    assert picture.stat().st_size < 60_000


if __name__ == "__main__":
    sys.exit(run(Path(sys.argv[1])).returncode)
