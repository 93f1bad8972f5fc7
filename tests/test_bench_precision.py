"""The suite `precision` of `fastmlp bench`, and `train --precision`: real runs, and how their answers are judged."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from typer.testing import CliRunner

from fastmlp.bench import html, precision, processes, products, race, rivals, suites, train
from fastmlp.bench.settings import Settings, Unusable
from fastmlp.bench.workloads import WORKLOADS
from fastmlp.cli.app import app
from fastmlp.model.network import MATMUL_PRECISIONS

from bench_runs import assert_tables, cells, run_here, silent
from instruction_sets import with_own_kernels

_engine = pytest.importorskip("fastmlp.kernels._engine")

BELOW = MATMUL_PRECISIONS[1:]
SETTINGS = Settings(workloads=("iris",), seconds=0.01, quick_check=True)


def document_of(isa):
    """Run the suite on the smallest net with an instruction set, in this process; return its document."""
    before = _engine.isa()
    with pytest.MonkeyPatch.context() as patch:
        run_here(patch)
        _engine.use_isa(isa)
        try:
            return suites.run(("precision",), {"precision": SETTINGS}, silent)
        finally:
            _engine.use_isa(before)


@pytest.fixture(scope="module")
def no_units():
    return document_of(with_own_kernels(_engine)[-1])


@pytest.fixture(scope="module")
def emulated():
    return document_of("amx-emulated-always")


both = pytest.mark.parametrize("name", ["no_units", "emulated"])


@both
def test_everything_is_measured(name, request):
    document = request.getfixturevalue(name)
    json.dumps(document, allow_nan=False)
    assert suites.problems(document) == [] and document["same"]
    result = document["suites"]["precision"]
    (entry,) = result["products"]
    assert entry["workload"] == "iris" and list(entry["errors"]) == list(products.PRODUCTS)
    assert list(result["fits"]["ends"]) == list(precision.SETS)
    for ends in result["fits"]["ends"].values():
        assert {len(values) for of in ends.values() for values in of.values()} == {2}
    assert {found["n"] for of in result["paired"].values() for found in of.values()} == {2 * len(precision.SETS)}


def test_without_units_all_is_as_with_highest(no_units):
    result = no_units["suites"]["precision"]
    (case,) = result["steps"]
    assert {record["status"] for record in case["records"].values()} == {"ok"}
    assert all(case["records"][name]["loss_diff"] == 0 for name in MATMUL_PRECISIONS)
    assert case["records"]["float64"]["loss_diff"] > 0
    assert set(no_units["figures"]) == {f"precision: iris {name}, seconds per step" for name in precision.ARITHMETIC}
    assert all(len(set(row.values())) == 1 for row in result["products"][0]["errors"].values())
    for name in BELOW:
        assert all(found["largest"] == 0 and found["p"] is None for found in result["paired"][name].values())
    notes = "\n".join(precision.tables(result)[0].notes)
    assert result["machine"]["why_no_matrix_units"] in notes and "high: computes as highest" in notes


def test_emulated_units_have_errors_and_losses_but_no_times(emulated):
    result = emulated["suites"]["precision"]
    assert result["steps"] == [] and emulated["figures"] == {} and result["machine"]["emulated"]
    for row in result["products"][0]["errors"].values():
        assert row["highest"] < row["high"] < row["medium"]
        assert all(row[name] < bound for name, bound in products.BOUNDS.items())
    for name in BELOW:
        assert result["paired"][name]["validation_loss"]["largest"] > 0
    shown = json.dumps([[table.title, table.columns, table.notes] for table in precision.tables(result)])
    assert "emulated in C" in shown and " us" not in shown
    assert not precision.charts(result)[0].labels


@both
def test_it_shows_itself(name, request):
    document = request.getfixturevalue(name)
    result = document["suites"]["precision"]
    assert_tables("precision", result)
    for bars in precision.charts(result):
        assert all(len(values) == len(bars.labels) for values in bars.series.values())
    pytest.importorskip("matplotlib")
    assert html.page(document).count("<svg") == sum(bool(bars.labels) for bars in precision.charts(result))


# --- judgement --------------------------------------------------------------------------------------------------------


def answered(**changes):
    """Made-up answers of two rounds; those of `changes` replace some in the second."""
    usual = {"losses": [2.0, 1.0], "seconds": [1.0], "base_seconds": [2.0]}
    rounds = [{name: dict(usual) for name in precision.ARITHMETIC} for _ in range(2)]
    for name, change in changes.items():
        rounds[1][name] = rounds[1][name] | change if "failed" not in change else change
    return rounds


def judged(same_bits=False, **changes):
    case = precision.case(WORKLOADS["iris"], 1, answered(**changes), () if same_bits else BELOW)
    return case["records"], case["problems"]


def test_speeds_are_medians_of_paired_ratios():
    records, problems = judged(high={"base_seconds": [6.0]}, medium={"seconds": [0.5]})
    assert problems == []
    assert [records[name]["speed"] for name in precision.ARITHMETIC] == [2, 4, 3, 2]
    assert records["medium"]["median"] == 0.75


@pytest.mark.parametrize(
    ("same_bits", "changes", "problem"),
    [
        (
            True,
            {"high": {"losses": [2.0, np.nextafter(1.0, 2)]}},
            "iris, 1 thr, high: results differ: losses differ by",
        ),
        (False, {"high": {"losses": [2.0, 1.2]}}, "high: results differ: losses differ by 2.0e-01"),
        (False, {"highest": {"losses": [2.0, np.nextafter(1.0, 2)]}}, "highest: results differ"),  # of another round
        (False, {"medium": {"losses": [2.0, float("nan")]}}, "medium: results differ: losses differ by nan"),
        (False, {"float64": {"failed": "MemoryError: no"}}, "float64: failed: MemoryError: no"),
    ],
)
def test_what_differs_has_no_times(same_bits, changes, problem):
    records, problems = judged(same_bits, **changes)
    (name,) = changes
    assert len(problems) == 1 and problem in problems[0]
    assert records[name]["speed"] is None and records[name]["median"] is None
    assert sum(record["speed"] is not None for record in records.values()) == len(records) - 1


def test_products_beyond_their_bound_and_other_bits_are_problems():
    errors = {"forward": {"highest": 1e-7, "high": 4e-5, "medium": None}}
    assert precision._beyond([{"workload": "iris", "errors": errors}]) == [
        "iris, forward, high: error 4e-05, more than 3e-05 of |A| |B|",
        "iris, forward, medium: error -, more than 8e-03 of |A| |B|",
    ]
    ends = {name: {end: [1.0, 2.0] for end in precision.ENDS} for name in MATMUL_PRECISIONS}
    ends["medium"] = {**ends["medium"], "loss": [1.0, 2.5]}
    differences = precision.paired({"ends": {"load_iris": ends}})
    assert differences["medium"]["loss"] == {"n": 2, "mean": 0.125, "largest": 0.25, "p": pytest.approx(0.5)}
    (line,) = precision._other_bits(differences, ())
    assert line.startswith("fits, medium: the loss is not that of highest")
    assert precision._other_bits(differences, ("medium",)) == []


@pytest.mark.parametrize("engine", ["cython", "reference"])
def test_the_machine_is_that_of_info(engine):
    facts = precision.machine(engine)
    assert facts["engine"] == engine and facts["emulated"] is ("emulated" in str(facts["matrix_units"]))
    if engine == "reference":
        assert facts["matrix_units"] is None and "this engine" in facts["why_no_matrix_units"]


# --- train --precision ------------------------------------------------------------------------------------------------


def test_rivals_take_part_at_the_precision_that_they_know():
    names = {p: Settings(precision=p).entrants("train") for p in MATMUL_PRECISIONS}
    assert names["highest"] == names["high"] == ["fastmlp", "scikit-learn", "pytorch", "torch.compile", "jax"]
    assert set(names["medium"]) - set(names["high"]) == {"torch autocast"}
    assert "torch autocast" not in Settings().entrants("predict")


@pytest.mark.parametrize("name", BELOW)
def test_train_tells_every_rival_and_shows_who_refuses(name, monkeypatch):
    """PyTorch is asked for as it is installed; the JAX here refuses, and its reason is shown."""
    run_here(monkeypatch)
    versions = processes.installed(["fastmlp", "scikit-learn", "pytorch"]) | {"jax": "0.0"}
    monkeypatch.setattr(processes, "installed", lambda names: {n: versions[n] for n in names if n in versions})

    def refuse(task, rival):
        raise NotImplementedError(f"JAX refuses {rivals.row(rival).precisions[task.precision]}")

    load, told = rivals.load, {}

    def loaded(rival):
        if rival == "jax":
            return SimpleNamespace(trainer=refuse)

        def trainer(task, rival):
            told[rival] = task.precision, task.network.matmul_precision
            return load(rival).trainer(task, rival)

        return SimpleNamespace(trainer=trainer)

    monkeypatch.setattr(rivals, "load", loaded)
    settings = Settings(workloads=("iris",), precision=name, seconds=0.01, quick_check=True)
    document = suites.run(("train",), {"train": settings}, silent)
    assert suites.problems(document) == []
    assert set(told.values()) == {(name, name)} and "fastmlp" in told
    assert list(document["figures"]) == [f"train: iris float32 {name}, seconds per step"]
    result = document["suites"]["train"]
    (entry,) = result["workloads"]
    preset = rivals.JAX_WORDS[name]
    assert (entry["rivals"]["jax"]["status"], entry["rivals"]["jax"]["problem"]) == ("absent", f"JAX refuses {preset}")
    assert entry["ratio"]["jax"] is None and entry["ratio"]["scikit-learn"] > 0
    (overview, _) = train.tables(result)
    assert cells(overview, "jax")["iris"] == "absent"
    notes = "\n".join(overview.notes)
    assert f"jax: absent: JAX refuses {preset}" in notes and f'fastmlp: matmul_precision="{name}"' in notes


def test_pytorch_computes_with_its_word(one_torch_thread):
    torch = pytest.importorskip("torch")
    before, found = torch.get_float32_matmul_precision(), {}
    workload = WORKLOADS["digits"]
    X, y = workload.make("float32")
    try:
        for name, p in (("pytorch", "highest"), ("pytorch", "medium"), ("torch autocast", "medium")):
            task = train.Task(workload, X, y, 1, precision=p)
            trainer = rivals.load(name).trainer(task, name)
            trainer.prepare(2)
            found[name, p] = trainer.fit(2)
            assert torch.get_float32_matmul_precision() == p
    finally:
        torch.set_float32_matmul_precision(before)
    exact = found["pytorch", "highest"]
    rounded = race.relative(found["torch autocast", "medium"], [exact])
    assert 1e-6 < rounded <= race.TOLERANCE["medium"]["losses"]
    assert race.relative(found["pytorch", "medium"], [exact]) <= race.TOLERANCE["medium"]["losses"]


# --- wrong usage ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--precision", "higher"], "--precision 'higher' is not one of highest, high, medium."),
        (["train", "--precision", "HIGH"], "--precision 'HIGH' is not one of"),
        (["train", "--precision", "high", "--dtype", "float64"], "--precision high is for float32"),
        (["train", "--rival", "torch autocast"], "'torch autocast' takes part with --precision medium only."),
        (["train", "--rival", "torch autocast", "--precision", "high"], "takes part with --precision medium only."),
        (["precision", "--precision", "high"], "--precision is an option of train, not of precision."),
        (["predict", "--precision", "high"], "--precision is an option of train, not of predict."),
        (["precision", "--dtype", "float64"], "--dtype is an option of"),
        (["precision", "--rival", "jax"], "--rival is an option of"),
        (["precision", "--workload", "small"], "--workload small is none of precision's"),
        (["precision", "--rounds", "0"], "--rounds"),
    ],
)
def test_bad_usage_is_refused_before_anything_runs(monkeypatch, arguments, message):
    monkeypatch.setattr(suites, "run", None)
    result = CliRunner().invoke(app, ["bench", *arguments])
    assert result.exit_code == 2 and message in " ".join(result.output.split())


def test_the_precision_is_that_of_train_alone(monkeypatch):
    asked = {}

    def run(names, options, tell, skipped):
        asked.update(options)
        raise Unusable("enough")

    monkeypatch.setattr(suites, "run", run)
    CliRunner().invoke(app, ["bench", "all", "--precision", "medium"])
    assert {name for name, settings in asked.items() if settings.precision == "medium"} == {"train"}
