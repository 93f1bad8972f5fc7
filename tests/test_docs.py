"""What the documentation shows, runs: Python blocks of README.md and all pages in docs/, and doctests of the modules.

The blocks of one file run in order, as one program in a fresh interpreter, so that one file's changes (a new
activation, say) meet no other's. Line numbers in a traceback are those of the file. A block that must not run is
marked with another language (text, bash, pycon; py for code of other libraries).

``python tests/test_docs.py docs/experiments.md`` runs a page in a temporary folder, as the test does, and puts the
pictures that it draws into docs/images.
"""

import ast
import doctest
import importlib.util
import json
import os
import pkgutil
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path, PurePosixPath
from statistics import geometric_mean

import pytest
from PIL import Image
from sklearn import neural_network

import fastmlp
from fastmlp import MLPClassifier, MLPRegressor, kernels
from fastmlp.bench.workloads import WORKLOADS
from fastmlp.data.targets import CLASSIFIER_LOSSES, REGRESSOR_LOSSES
from fastmlp.engines import backends
from fastmlp.kernels import formulas
from fastmlp.model.initialization import INITIALIZERS
from fastmlp.training import optimizers
from fastmlp.training.schedules import SCHEDULES

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
IMAGES = DOCS / "images"
SITE = [page for page in sorted(DOCS.rglob("*.md")) if "_build" not in page.parts]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *SITE]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PICTURE = re.compile(r"^!\[[^]]+\]\(([^):]+)\)$", re.MULTILINE)
SHOWN = re.compile(r"^\| ([^|]+) \| \[[^]]+\]\((\w+\.md)\) \| `([^`]+)` \|$", re.MULTILINE)  # item, page, call
TREE = re.compile(r"^```\{toctree\}\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# docs/speed_page.py and docs/tabular_page.py draw theirs; the playground's show the page in a browser
NOT_DRAWN_BY_PAGES = {"speed.png", "tabular.png", "playground.webp", "playground-phone.png"}


def program(page):
    """The page's Python blocks on the lines they have in the page, everything else blank."""
    text = page.read_text(encoding="utf-8")
    lines = [""] * text.count("\n")
    for block in BLOCK.finditer(text):
        first = text.count("\n", 0, block.start(1))
        code = block[1].splitlines()
        lines[first : first + len(code)] = code
    return "\n".join(lines)


def run(page, folder, **options):
    """Run the page's blocks in a fresh interpreter, in this folder; pictures go to its docs/images."""
    Path(folder, "docs", "images").mkdir(parents=True)
    execute = "import sys; exec(compile(sys.stdin.read(), sys.argv[1], 'exec'), {'__name__': '__main__'})"
    return subprocess.run(
        [sys.executable, "-c", execute, str(page)],
        input=program(page),
        cwd=folder,
        env=os.environ | {"PYTHONIOENCODING": "utf-8", "MPLBACKEND": "agg"},
        encoding="utf-8",
        **options,
    )


def pictures(page):
    """Names of the pictures that a page shows."""
    return {PurePosixPath(path).name for path in PICTURE.findall(page.read_text(encoding="utf-8"))}


def name_of(page):
    return page.relative_to(ROOT).as_posix()


def marks_of(page):
    """Leave the pages beside the README out of plain `pytest`, and three thousand fits out of the gate."""
    marks = {"README.md": [], "experiments.md": [pytest.mark.nightly]}
    return marks.get(page.name, [pytest.mark.exhaustive])


PROGRAMS = [pytest.param(page, marks=marks_of(page), id=name_of(page)) for page in PAGES if program(page).strip()]


@pytest.mark.parametrize("page", PROGRAMS)
def test_code_blocks_run(page, tmp_path):
    done = run(page, tmp_path, capture_output=True)
    assert done.returncode == 0, f"{page.name} fails:\n{done.stdout}\n{done.stderr}"
    # a page draws the pictures that it shows, no more and no fewer
    drawn = {path.name for path in (tmp_path / "docs" / "images").glob("*")}
    assert drawn == pictures(page) - NOT_DRAWN_BY_PAGES


def test_code_blocks_are_python():
    """Those that run at night alone are compiled at least."""
    for page in PAGES:
        compile(program(page), str(page), "exec")


def test_readme_has_code():
    assert "MLPClassifier" in program(ROOT / "README.md")


def test_blocks_keep_their_lines(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# Title\n```python\na = 1\n```\ntext\n```bash\nls\n```\n\n```python\nb = a\n```\n")
    assert program(page).split("\n") == ["", "", "a = 1", *[""] * 7, "b = a", ""]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        if "://" in target:
            continue
        if target.startswith("../../actions/workflows/ci.yml"):  # what the code host makes of the workflow
            target = ".github/workflows/ci.yml"
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


def anchors(page):
    """Anchors of the headings of a page, as code hosts and the site make them."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_to_headings_lead_somewhere(page):
    for path, anchor in re.findall(r"\]\(([^)#\s:]*)#([^)]+)\)", page.read_text(encoding="utf-8")):
        target = page.parent / path if path else page
        assert anchor in anchors(target), f"{page.name} links to {path}#{anchor}"


def test_site_has_every_page():
    """The tables of contents name each page once."""
    named = []
    for page in SITE:
        for tree in TREE.findall(page.read_text(encoding="utf-8")):
            entries = [line for line in tree.splitlines() if line and not line.startswith(":")]
            named += [(page.parent / f"{entry}.md").resolve() for entry in entries]
    assert sorted([*named, DOCS / "index.md"]) == SITE


# --- the course: its pages are notebooks, which the documentation's build runs ----------------------------------------


LESSONS = sorted(page for page in (DOCS / "course").glob("*.md") if page.name != "index.md")


@pytest.mark.parametrize("page", LESSONS, ids=name_of)
def test_lesson_ends_with_three_exercises_and_their_solutions(page):
    text = page.read_text(encoding="utf-8")
    assert text.startswith("---\nfile_format: mystnb\n") and "```python" not in text  # else its code would not run
    lesson, exercises = text.split("\n## Exercises\n")
    assert re.findall(r"^\*\*(\d)\.\*\*|^:tags: \[(hide)-cell\]$", exercises, re.MULTILINE) == [
        pair for number in "123" for pair in ((number, ""), ("", "hide"))
    ]
    assert "hide-cell" not in lesson and lesson.count("```{code-cell} python") >= 3


def test_table_of_the_course_names_what_its_pages_call():
    shown = SHOWN.findall((DOCS / "course" / "index.md").read_text(encoding="utf-8"))
    texts = {page.name: page.read_text(encoding="utf-8") for page in LESSONS}
    assert len(shown) > 60 and {page for _, page, _ in shown} == texts.keys()
    assert [(page, call) for _, page, call in shown if call.removesuffix(")") not in texts[page]] == []


@pytest.mark.exhaustive  # five seconds
def test_other_libraries_code_runs(one_torch_thread):
    """The PyTorch half of docs/migration.md: what is said to be the same is about as good."""
    page = (DOCS / "migration.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```(?:python|py)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    names = {}
    for needed in ("load_digits", "from torch import nn", 'solver="adamw"'):
        (block,) = [block for block in blocks if needed in block]
        exec(block, names)
    assert abs(names["accuracy"] - names["score"]) < 0.03


def modules():
    """Every module with examples; fastmlp.kernels lies in a folder of its own in a checkout."""
    names = {"fastmlp", "fastmlp.bench.quick", "fastmlp.kernels"}
    for package in (fastmlp, kernels):
        found = pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
        names |= {module.name for module in found if not module.name.startswith("fastmlp.bench.")}
    names = {name for name in names if ".template." not in name}  # parts of one text
    absent = {row.module for name, row in backends.BACKENDS.items() if backends.why_not(name)}
    return sorted(names - absent)


@pytest.mark.parametrize("name", modules())
def test_doctests(name):
    if name.startswith("fastmlp.dask."):
        pytest.importorskip("distributed")
    module = importlib.import_module(name)
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    failed, _ = doctest.testmod(module, optionflags=flags)
    assert failed == 0


# --- the tables of options.md against those that the package goes by --------------------------------------------------


def table(first_cell):
    """The table of options.md whose header begins with this cell: names -> the cells after, as {parameter: default}."""
    rows = (DOCS / "options.md").read_text(encoding="utf-8").split(f"\n| {first_cell} |", 1)[1]
    rows = rows.split("\n\n")[0].splitlines()[2:]
    named = [row for row in rows if row.startswith("| `")]  # the others are formulas of users
    return {row.split("`")[1]: dict(re.findall(r"`(\w+)=([^`]+)`", row)) for row in named}


def parameters_of(rows):
    return {name: dict(row.parameters) for name, row in rows.items()}


def defaults(solver, names):
    """What a solver makes of parameters that are left alone."""
    given = MLPClassifier().get_params() | {"weight_decay": optimizers.WEIGHT_DECAY.get(solver)}
    own = {name: value for name, value in optimizers.SOLVERS[solver].parameters.items() if value is not None}
    return {name: own.get(name, given.get(name)) for name in names}


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
    text = (DOCS / "options.md").read_text(encoding="utf-8")
    new = estimator().get_params().keys() - getattr(neural_network, estimator.__name__)().get_params().keys()
    assert [name for name in sorted(new - {"backend", "n_jobs"}) if name not in text] == []


@pytest.mark.parametrize("picture", sorted(IMAGES.glob("*")), ids=lambda path: path.name)
def test_pictures_are_shown_and_small(picture):
    assert any(picture.name in pictures(page) for page in PAGES)
    assert picture.stat().st_size < 60_000


@pytest.fixture
def speed_page(monkeypatch):
    monkeypatch.syspath_prepend(str(DOCS))
    spec = importlib.util.spec_from_file_location("speed_page", DOCS / "speed_page.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script


def test_speed_chart_shows_the_table(speed_page, tmp_path):
    """The picture carries the figures that it was drawn from; they are those of docs/performance.md."""
    speed_chart, page = speed_page.speed_chart, (DOCS / "performance.md").read_text(encoding="utf-8")
    rows = speed_chart.ratios(page)
    assert rows.keys() == WORKLOADS.keys()
    speed_chart.draw(tmp_path / "speed.png", page)
    for picture in (IMAGES / "speed.png", tmp_path / "speed.png"):
        with Image.open(picture) as image:
            assert json.loads(image.text[speed_chart.FIGURES]) == rows, f"{picture.name}: run docs/speed_chart.py"


def run_of(processor, ratios, precision="highest", status="ok"):
    """A document of `fastmlp bench train` with these ratios, by workload and rival; a step of ours takes 2 us."""

    def record(ratio):
        times = {"median": 2e-6 * ratio, "gflops": 50.0, "peak_fraction": 0.5}
        return {"status": "ok", "best": "2", "threads": {"2": times}}

    def entry(name, of):
        records = {"fastmlp": record(1.0)} | {rival: record(ratio) for rival, ratio in of.items()}
        facts = {"name": name, "activation": WORKLOADS[name].activation, "solver": WORKLOADS[name].solver}
        return {**facts, "rivals": records, "ratio": of, "ratio_to_best": min(of.values())}

    entries = [entry(*item) for item in ratios.items()]
    rivals = list(entries[0]["ratio"])
    result = {
        "settings": {"rounds": 3, "threads": [1, 2], "dtype": "float32", "precision": precision},
        "versions": {"fastmlp": "0.1", **dict.fromkeys(rivals, "1.0")},
        "workloads": entries,
        "mean_ratio": {rival: geometric_mean([entry["ratio"][rival] for entry in entries]) for rival in rivals},
        "mean_ratio_to_best": geometric_mean([entry["ratio_to_best"] for entry in entries]),
        "peak_gflops": {"default": {"1": 100.0, "2": 200.0}},
        "problems": [],
    }
    described = {"machine": {"processor": processor}, "cpus": 2, "isa": {"chosen": "avx512"}}
    described["versions"] = {"python": "3.11", "numpy": "2.4", "scikit-learn": "1.9", "fastmlp": "0.1"}
    document = {"schema": 2, "environment": described, "same": status == "ok", "figures": {}}
    return {**document, "suites": {"train": result}}


def test_speed_page_is_written_from_runs(speed_page, monkeypatch, tmp_path):
    page, picture, files = tmp_path / "performance.md", tmp_path / "speed.png", []
    page.write_text((DOCS / "performance.md").read_text(encoding="utf-8"), encoding="utf-8")
    ratios = {"iris": {"scikit-learn": 48.0, "pytorch": 50.0, "jax": 4.5}}
    ratios["higgs"] = {"scikit-learn": 3.0, "pytorch": 2.0, "jax": 0.5}
    for name, document in {
        "a": run_of("Processor A", ratios),
        "b": run_of("Processor B", {"wide": {"scikit-learn": 8.0, "torch.compile": 2.0}}, "high"),
    }.items():
        files.append(tmp_path / f"{name}.json")
        files[-1].write_text(json.dumps(document))
    monkeypatch.setattr(speed_page, "PAGE", page)
    monkeypatch.setattr(speed_page, "PICTURE", picture)
    monkeypatch.setattr(sys, "argv", ["speed_page.py", str(files[0]), f"Family B={files[1]}"])
    for _ in range(2):  # written again, it is the same
        speed_page.main()
        text = page.read_text(encoding="utf-8")
    assert "| Processor A | 2 | avx512 | float32 | 12.0x | 10.0x | - | 1.50x | 1.50x | higgs 0.500x |" in text
    assert "| Family B | 2 | avx512 | float32 high | 8.00x | - | 2.00x | - | 2.00x | wide 2.00x |" in text
    assert "| higgs (tanh, sgd) | 2.00 | 3.00x (6.00) | 2.00x (4.00) | 0.500x (1.00) | 50.0 | 50% |" in text
    assert text.count("Processor A") == 2 and "Zen 5, 1 MiB" not in text
    assert speed_page.speed_chart.caption(text).startswith("Processor A, 2 cores, avx512, float32; ")
    with Image.open(picture) as image:
        drawn = json.loads(image.text[speed_page.speed_chart.FIGURES])
    assert drawn == {"iris": {"scikit-learn": 48.0, "PyTorch": 50.0, "JAX": 4.5}} | {
        "higgs": {"scikit-learn": 3.0, "PyTorch": 2.0, "JAX": 0.5}
    }


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (run_of("P", {"iris": {"scikit-learn": 48.0, "jax": 4.5}}), "no time of pytorch on iris"),
        (run_of("P", {"iris": {"scikit-learn": 48.0}}, status="differs"), "has results that differ"),
        ({"schema": 2, "figures": {}, "suites": {}}, "has no run of `fastmlp bench train`"),
        ({"schema": 1}, "is no result of this version"),
    ],
)
def test_speed_page_refuses_other_files(speed_page, tmp_path, document, message):
    path = tmp_path / "run.json"
    path.write_text(json.dumps(document))
    with pytest.raises(ValueError, match=message):
        speed_page.runs([str(path)])


# --- the reference and the changelog ----------------------------------------------------------------------------------


def test_reference_has_every_public_name():
    """What the packages export is on the page of docs/api.md."""
    documented = re.findall(r"^   (\w+)$", (DOCS / "api.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(fastmlp.__all__) - {"__version__"} <= set(documented)


def test_changelog_and_citation_have_this_version():
    versions = re.findall(r"^## \[([^]]+)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert versions[0] == "Unreleased"
    assert versions[1] == fastmlp.__version__
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.findall(r"^version: (.+)$", citation, re.MULTILINE) == [fastmlp.__version__]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        done = run(Path(sys.argv[1]).resolve(), folder)
        for picture in Path(folder, "docs", "images").glob("*"):
            shutil.copy(picture, IMAGES)
    sys.exit(done.returncode)
