"""What type checkers and editors see: data/typed_program.py is right, data/typed_mistakes.py has marked mistakes."""

import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
from sklearn.metrics import get_scorer_names

import fastmlp
from fastmlp import MLPClassifier, MLPRegressor, kernels
from fastmlp.data.targets import CLASSIFIER_LOSSES, REGRESSOR_LOSSES
from fastmlp.engines.backends import BACKENDS
from fastmlp.estimator import types
from fastmlp.estimator.parameters import HIDDEN_ACTIVATIONS
from fastmlp.kernels.layer_table import PLACEMENTS
from fastmlp.model.initialization import INITIALIZERS
from fastmlp.model.network import MATMUL_PRECISIONS
from fastmlp.training.optimizers import SOLVERS
from fastmlp.training.schedules import SCHEDULES, SHARES

from tiers import nightly

DATA = Path(__file__).parent / "data"
PROGRAM, MISTAKES = DATA / "typed_program.py", DATA / "typed_mistakes.py"
WRONG = {i for i, line in enumerate(MISTAKES.read_text("utf-8").splitlines(), 1) if "  # wrong: " in line}

# --- names ------------------------------------------------------------------------------------------------------------

NAMES = [
    (types.SolverName, SOLVERS),
    (types.ActivationName, HIDDEN_ACTIVATIONS),
    (types.ClassifierLossName, CLASSIFIER_LOSSES),
    (types.RegressorLossName, REGRESSOR_LOSSES),
    (types.ScheduleName, SCHEDULES),
    (types.ShareName, SHARES),
    (types.InitializerName, INITIALIZERS),
    (types.BackendName, ("auto", *BACKENDS)),
    (types.Placement, [place for place in PLACEMENTS if place]),
    (types.MatmulPrecision, MATMUL_PRECISIONS),
]


@pytest.mark.parametrize("literal, table", NAMES, ids=lambda value: "")
def test_names_are_those_of_the_tables(literal, table):
    assert get_args(literal) == tuple(table)


def test_scorers_are_those_of_scikit_learn():
    assert set(get_scorer_names()) <= set(get_args(types.ScorerName))  # other versions have fewer


@pytest.mark.parametrize("cls", [MLPClassifier, MLPRegressor])
def test_hints_can_be_read_at_run_time(cls):
    hints = get_type_hints(cls.__init__)
    assert hints.keys() - {"return"} == set(cls._get_param_names())
    assert hints["solver"] == types.Solver and hints["alpha"] is float


def test_every_public_name_has_its_type(checkout):
    """What is loaded at first use is imported for type checkers."""
    text = (checkout / "fastmlp" / "__init__.py").read_text("utf-8")
    imported = text.split("if TYPE_CHECKING:\n", 1)[1].split("\n\n", 1)[0]
    assert all(re.search(rf"\b{name}\b", imported) for name in fastmlp.__all__ if name != "__version__")


# --- checkers ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A folder with the package as it is installed: in a checkout the kernels lie elsewhere."""
    folder = tmp_path_factory.mktemp("installed")
    ignored = shutil.ignore_patterns("__pycache__", "*.so", "*.pyd", "*.c", "*.h", "*.o", "generated", "kernels")
    shutil.copytree(Path(fastmlp.__file__).parent, folder / "fastmlp", ignore=ignored)
    shutil.copytree(Path(kernels.__file__).parent, folder / "fastmlp" / "kernels", ignore=ignored)
    for program in (PROGRAM, MISTAKES):
        shutil.copy(program, folder)
    return folder


def test_the_program_runs(monkeypatch):
    """What checkers must accept are right uses."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        runpy.run_path(str(PROGRAM))


def reported_by_pyright(folder, programs):
    """Return the lines that pyright reports; basedpyright is pyright, with a node of its own."""
    pytest.importorskip("basedpyright")
    config = {
        "include": [program.name for program in programs],
        "typeCheckingMode": "standard",
        "pythonVersion": "3.11",
    }
    (folder / "pyrightconfig.json").write_text(json.dumps(config), "utf-8")
    command = [sys.executable, "-m", "basedpyright", "--outputjson", "-p", str(folder)]
    done = subprocess.run([*command, "--pythonpath", sys.executable], capture_output=True, text=True, cwd=folder)
    found = json.loads(done.stdout)["generalDiagnostics"]
    errors = [row for row in found if row["severity"] == "error"]
    return [(Path(row["file"]).name, row["range"]["start"]["line"] + 1, row["message"]) for row in errors]


def reported_by_mypy(folder, programs):
    """Return the lines that mypy reports if it may read scikit-learn, which ships no types."""
    pytest.importorskip("mypy")
    sections = ["[mypy]", "python_version = 3.11", "cache_dir = .mypy_cache"]
    sections += ["[mypy-sklearn.*]", "follow_untyped_imports = True", "ignore_errors = True"]
    sections += ["[mypy-fastmlp.*]", "ignore_errors = True", "[mypy-scipy.*,joblib.*]", "follow_imports = skip"]
    (folder / "mypy.ini").write_text("\n".join(sections), "utf-8")
    command = [sys.executable, "-m", "mypy", "--config-file", "mypy.ini", "--no-error-summary"]
    env = os.environ | {"MYPYPATH": str(folder)}
    command += [program.name for program in programs]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=env)
    rows = re.findall(r"^(\w+\.py):(\d+): error: (.*)$", done.stdout, re.MULTILINE)
    return [(file, int(line), message) for file, line, message in rows]


# mypy reads much of scikit-learn, which takes a minute; without it, it checks the right uses with the package
@pytest.fixture(scope="module", params=[reported_by_pyright, *nightly(reported_by_mypy)])
def found(request, checkout):
    """What a checker reports of both programs."""
    return request.param(checkout, [MISTAKES, PROGRAM])


def test_checkers_find_every_mistake_and_no_other(found):
    mistakes = [row for row in found if row[0] == MISTAKES.name]
    lines = {line for _, line, _ in mistakes}
    assert lines - WRONG == set(), [row for row in mistakes if row[1] not in WRONG]
    assert WRONG - lines == set()
    assert len(WRONG) >= 40


def test_checkers_report_no_right_use(found):
    assert [row for row in found if row[0] == PROGRAM.name] == []


# --- editors ----------------------------------------------------------------------------------------------------------

COMPLETIONS = [
    ("MLPClassifier().fit(X, y).pre", {"predict", "predict_proba", "predict_log_proba"}),
    ("MLPClassifier().set_params(alpha=1).fit(X, y).partial_fit(X, y).cla", {"classes_", "class_weight"}),
    ("MLPClassifier(hid", {"hidden_layer_sizes="}),
    ("fastmlp.load('model').fit(X, y).pre", {"predict", "predict_proba"}),
]
MORE_COMPLETIONS = [
    ("MLPRegressor().fit(X, y).", {"predict", "score", "coefs_", "loss_curve_", "save", "summary", "alpha"}),
    ("MLPRegressor().partial_fit(X, y).predict(X).sha", {"shape"}),
    ("MLPRegressor(learning_rate", {"learning_rate=", "learning_rate_init="}),
    ("MLPClassifier().fit(X, y, X_", {"X_val="}),
    ("fastmlp.ML", {"MLPClassifier", "MLPRegressor"}),
    ("TimeLimit(sec", {"seconds="}),
    ("LossCurveDisplay.from_", {"from_estimator", "from_history"}),
]


@pytest.mark.parametrize(
    "text, names",
    [
        *(pytest.param(*row, id=row[0]) for row in COMPLETIONS),
        *(pytest.param(*row, id=row[0], marks=pytest.mark.exhaustive) for row in MORE_COMPLETIONS),
    ],
)
def test_jedi_completes(text, names, checkout):
    jedi = pytest.importorskip("jedi")
    imports = [
        "import fastmlp",
        "from fastmlp import MLPClassifier, MLPRegressor",
        "from fastmlp.callbacks import TimeLimit",
        "from fastmlp.displays import LossCurveDisplay",
    ]
    project = jedi.Project(checkout, sys_path=[str(checkout), *filter(None, sys.path)])
    script = jedi.Script("\n".join([*imports, text]), path=checkout / "program.py", project=project)
    assert names <= {completion.name for completion in script.complete()}
