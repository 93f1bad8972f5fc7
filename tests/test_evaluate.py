"""fastmlp evaluate: scikit-learn's own metrics of what the estimator predicts, and what has no value."""

import json
import re

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris
from sklearn.preprocessing import label_binarize

from fastmlp.cli import scores
from fastmlp.cli.scores import NAMES, QUANTILES
from fastmlp.tabular import recipe
from fastmlp.tabular.reading import open_source

from shell import invoke, refused
from tiers import each_value_once, exhaustive

QUICK = ("--hidden", "6", "--max-iter", "20", "--learning-rate-init", "0.02", "--random-state", "0", "--quiet")

#: Data sets -> their table, and options of the training.
DATA = {
    "three texts": (lambda: _named(load_iris), ()),
    "two whole numbers": (lambda: load_breast_cancer(as_frame=True).frame, ()),
    "true and false": (lambda: load_iris(as_frame=True).frame.assign(target=lambda t: t["target"] == 1), ()),
    "two texts, hinge": (lambda: _named(load_breast_cancer), ("--loss", "hinge")),
    "three texts, hinge": (lambda: _named(load_iris), ("--loss", "squared_hinge")),
    "values": (lambda: load_diabetes(as_frame=True).frame, ("--task", "regression")),
    "values, float64": (lambda: load_diabetes(as_frame=True).frame, ("--dtype", "float64", "--task", "regression")),
}


def _named(load):
    data = load(as_frame=True)
    return data.frame.assign(target=data.target_names[data.target])


SPARED = ("values, float64", "true and false")


@pytest.fixture(scope="module", params=[*(n for n in DATA if n not in SPARED), *exhaustive(*SPARED)])
def case(request, tmp_path_factory):
    """A folder with the model m.st and the data d.csv, and the table of the latter."""
    folder = tmp_path_factory.mktemp("evaluate")
    make, options = DATA[request.param]
    table = make().sample(frac=1, random_state=0).reset_index(drop=True)
    table["w"] = np.arange(len(table)) % 3 / 2
    table.to_csv(folder / "d.csv", index=False)
    table.head(120).drop(columns="w").to_csv(folder / "train.csv", index=False)
    invoke("train", folder / "train.csv", "--target", "target", *options, *QUICK, "-o", folder / "m.st")
    return folder, table


def evaluated(folder, *options, data="d.csv"):
    return json.loads(invoke("evaluate", folder / "m.st", folder / data, *options, "--json", "-").stdout)


def judged(folder, table, weight):
    """What scikit-learn's functions say about what the estimator predicts."""
    estimator, made = recipe.load(folder / "m.st")
    X = np.concatenate(list(made.blocks(open_source(folder / "d.csv"), estimator.coefs_[0].dtype)))
    y, predicted, w = table["target"].to_numpy(), estimator.predict(X), {"sample_weight": weight}
    if made.task == "regression":
        return {
            "r2": metrics.r2_score(y, predicted, **w),
            "explained_variance": metrics.explained_variance_score(y, predicted, **w),
            "rmse": metrics.root_mean_squared_error(y, predicted, **w),
            "mae": metrics.mean_absolute_error(y, predicted, **w),
            "median_absolute_error": metrics.median_absolute_error(y, predicted, **w),
            "max_error": metrics.max_error(y, predicted),
            "mean_absolute_percentage_error": metrics.mean_absolute_percentage_error(y, predicted, **w),
            "bias": np.average(predicted - y, weights=weight),
        }
    classes = estimator.classes_
    found = {
        "accuracy": metrics.accuracy_score(y, predicted, **w),
        "balanced_accuracy": metrics.balanced_accuracy_score(y, predicted, **w),
        "f1_macro": metrics.f1_score(y, predicted, average="macro", **w),
        "f1_weighted": metrics.f1_score(y, predicted, average="weighted", **w),
        "mcc": metrics.matthews_corrcoef(y, predicted, **w),
        "log_loss": None,
        "brier": None,
    }
    has = hasattr(estimator, "predict_proba")
    ranks = estimator.predict_proba(X) if has else estimator.decision_function(X)
    if has:
        found["log_loss"] = metrics.log_loss(y, ranks, labels=classes, **w)
        found["brier"] = metrics.brier_score_loss(y, ranks, labels=classes, **w)
    if len(classes) == 2:
        positive = ranks[:, 1] if has else ranks
        found["roc_auc"] = metrics.roc_auc_score(y == classes[1], positive, **w)
        found["average_precision"] = metrics.average_precision_score(y == classes[1], positive, **w)
        if has:
            assert found["brier"] == pytest.approx(metrics.brier_score_loss(y == classes[1], positive, **w))
        return found
    truth = label_binarize(y, classes=classes)
    found["roc_auc"] = metrics.roc_auc_score(truth, ranks, average="macro", **w)
    if has:
        theirs = metrics.roc_auc_score(y, ranks.astype(float) / ranks.sum(axis=1, dtype=float, keepdims=True),
                                       multi_class="ovr", **w)  # fmt: skip
        assert found["roc_auc"] == pytest.approx(theirs)
    found["average_precision"] = metrics.average_precision_score(truth, ranks, average="macro", **w)
    return found


@each_value_once
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.filterwarnings("ignore:The y_prob values do not sum:UserWarning")
def test_every_metric_is_scikit_learns(case, monkeypatch, weighted):
    monkeypatch.setattr("fastmlp.tabular.reading.BATCH_ROWS", 41)  # several blocks
    folder, table = case
    report = evaluated(folder, *(("--weight", "w") if weighted else ()))
    wanted = judged(folder, table, table["w"].to_numpy() if weighted else None)
    assert set(report["metrics"]) == set(wanted)
    for name, value in wanted.items():
        assert report["metrics"][name] == (None if value is None else pytest.approx(value, rel=1e-6)), name
    assert report["rows"] == {"evaluated": len(table), "without_target": 0, "of_unknown_class": 0}
    assert set(report["undefined"]) == {name for name, value in wanted.items() if value is None}
    assert set(wanted) <= set(NAMES)


@each_value_once
@pytest.mark.parametrize("weighted", [False, True])
def test_the_tables_beside_the_metrics(case, weighted):
    folder, table = case
    report = evaluated(folder, *(("--weight", "w") if weighted else ()))
    weight = table["w"].to_numpy() if weighted else None
    estimator, made = recipe.load(folder / "m.st")
    X = np.concatenate(list(made.blocks(open_source(folder / "d.csv"), estimator.coefs_[0].dtype)))
    y, predicted = table["target"].to_numpy(), estimator.predict(X)
    if made.task == "regression":
        residuals = y - predicted.astype(float)
        assert list(report["residuals"].values()) == pytest.approx(np.quantile(residuals, QUANTILES).tolist())
        return
    confusion = metrics.confusion_matrix(y, predicted, sample_weight=weight)
    np.testing.assert_allclose(report["confusion_matrix"], confusion)
    theirs = metrics.classification_report(y, predicted, output_dict=True, sample_weight=weight, zero_division=np.nan)
    for label, ours in zip(report["classes"], report["per_class"], strict=True):
        names = {"f1": "f1-score", "rows": "support", "weight": "support"}
        entry = theirs[str(label)]
        for name, value in ours.items():
            assert (np.nan if value is None else value) == pytest.approx(entry[names.get(name, name)], nan_ok=True)
    if not hasattr(estimator, "predict_proba"):
        assert report["calibration"] is None
        return
    _check_calibration(report["calibration"], y, estimator.predict_proba(X), estimator.classes_)


def _check_calibration(calibration, y, probabilities, classes):
    """By masks, as a reader would do it."""
    binary = len(classes) == 2
    stated = probabilities[:, 1] if binary else probabilities.max(axis=1)
    right = y == (classes[1] if binary else classes[probabilities.argmax(axis=1)])
    error, n = 0.0, 0
    for entry in calibration["bins"]:
        inside = (stated > entry["from"]) & (stated <= entry["to"]) | ((stated == 0) & (entry["from"] == 0))
        assert entry["rows"] == inside.sum() > 0
        assert entry["mean_probability"] == pytest.approx(stated[inside].mean(), rel=1e-5)
        assert entry["share"] == pytest.approx(right[inside].mean())
        error += inside.sum() * abs(stated[inside].mean() - right[inside].mean())
        n += inside.sum()
    assert n == len(y)
    assert calibration["expected_calibration_error"] == pytest.approx(error / n, rel=1e-4)


def test_what_is_printed_is_in_the_json(case):
    folder, _ = case
    report, text = evaluated(folder), invoke("evaluate", folder / "m.st", folder / "d.csv").stdout
    for name, value in report["metrics"].items():
        shown = "undefined: " if value is None else f"{value:.4g}"
        assert re.search(rf"{re.escape(NAMES[name])} +{re.escape(shown)}", text), name
    if report["task"] == "classification" and report["calibration"]:
        error = report["calibration"]["expected_calibration_error"]
        assert f"expected calibration error: {error:.4g}" in text
    assert f"target: {report['rows']['evaluated']} rows" in text


def test_the_metrics_of_train_are_those_of_evaluate(tmp_path):
    """On the rows of a validation file, weighted or not."""
    for frame, task in ((_named(load_iris), "classification"), (load_diabetes(as_frame=True).frame, "regression")):
        frame = frame.sample(frac=1, random_state=1).assign(w=np.arange(len(frame)) % 4)
        frame[:100].to_csv(tmp_path / "a.csv", index=False)
        frame[100:].to_csv(tmp_path / "b.csv", index=False)
        options = ("--target", "target", "--weight", "w", "--valid", tmp_path / "b.csv", "--task", task)
        trained = json.loads(
            invoke("train", tmp_path / "a.csv", *options, *QUICK, "-o", tmp_path / "m.st", "--json", "-").stdout
        )
        report = evaluated(tmp_path, "--weight", "w", data="b.csv")
        for name in set(trained["metrics"]) - {"of"}:
            assert report["metrics"][name] == pytest.approx(trained["metrics"][name], rel=1e-6), name


# --- rows that do not count, metrics without a value ------------------------------------------------------------------


def test_rows_without_a_known_target_are_counted_and_left_out(tmp_path):
    frame = _named(load_iris).sample(frac=1, random_state=0)
    frame.to_csv(tmp_path / "d.csv", index=False)
    invoke("train", tmp_path / "d.csv", "--target", "target", *QUICK, "-o", tmp_path / "m.st")
    spoilt = frame.copy()
    spoilt.iloc[:7, -1], spoilt.iloc[7:10, -1] = None, ["rose", "rose", "tulip"]
    spoilt.to_csv(tmp_path / "spoilt.csv", index=False)
    frame[10:].to_csv(tmp_path / "rest.csv", index=False)
    report = evaluated(tmp_path, data="spoilt.csv")
    assert report["rows"] == {"evaluated": 140, "without_target": 7, "of_unknown_class": 3}
    assert report["metrics"] == evaluated(tmp_path, data="rest.csv")["metrics"]
    notes = invoke("evaluate", tmp_path / "m.st", tmp_path / "spoilt.csv").stderr
    assert "7 rows without a value of 'target': left out" in notes
    assert "3 rows of a class that training did not see ('rose', 'tulip'): left out" in notes
    spoilt[:10].to_csv(tmp_path / "spoilt.csv", index=False)
    assert "no row has a target that can be compared" in refused("evaluate", tmp_path / "m.st", tmp_path / "spoilt.csv")


def test_metrics_without_a_value_are_null_and_say_why(tmp_path):
    iris, diabetes = _named(load_iris), load_diabetes(as_frame=True).frame
    iris.to_csv(tmp_path / "d.csv", index=False)
    invoke("train", tmp_path / "d.csv", "--target", "target", *QUICK, "-o", tmp_path / "m.st")
    iris[:20].to_csv(tmp_path / "one.csv", index=False)
    report = evaluated(tmp_path, data="one.csv")
    assert report["undefined"] == {
        "roc_auc": "no row has the class 'versicolor'",
        "average_precision": "no row has the class 'versicolor'",
        "mcc": "all rows have one class",
    }
    assert report["metrics"]["accuracy"] > 0.5 and report["per_class"][1]["recall"] is None

    diabetes.to_csv(tmp_path / "d.csv", index=False)
    invoke("train", tmp_path / "d.csv", "--target", "target", *QUICK, "-o", tmp_path / "m.st")
    for rows, reason in ((1, "there is one row only"), (5, "the target is the same in every row")):
        diabetes[:rows].assign(target=0).to_csv(tmp_path / "one.csv", index=False)
        report = evaluated(tmp_path, data="one.csv")
        zero = "the target is 0 in " + ("1 row" if rows == 1 else "5 rows")
        assert report["undefined"] == {
            "r2": reason,
            "explained_variance": reason,
            "mean_absolute_percentage_error": zero,
        }
        assert report["metrics"]["r2"] is None and report["metrics"]["bias"] > 0


def test_a_value_that_is_not_finite_is_none():
    assert scores.computed({"a": lambda: np.nan, "b": lambda: 1}) == ({"a": None, "b": 1.0}, {"a": "it is nan"})


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda t: t.drop(columns="target"), (), "no column 'target'"),
        (lambda t: t.assign(target="much"), (), "row 1, column 'target': 'much' is no number"),
        (lambda t: t.assign(target=np.inf), (), "row 1, column 'target': inf is no number to learn from"),
        (lambda t: t.assign(target=np.nan), (), "no row has a target that can be compared"),
        (lambda t: t, ("--weight", "v"), "no column 'v'"),
        (lambda t: t, ("--weight", "target"), "--weight target is the target"),
        (lambda t: t.assign(w=[1.0, -1, *[1] * (len(t) - 2)]), ("--weight", "w"), "row 2, column 'w': -1 is no weight"),
        (lambda t: t.assign(w=0), ("--weight", "w"), "column 'w': the weights are 0 in every row"),
        (lambda t: t.assign(w=[None, *[1] * (len(t) - 1)]), ("--weight", "w"), "row 1, column 'w': the weight is miss"),
        (lambda t: t[:0], (), "has no rows"),
    ],
)
def test_evaluate_refuses_in_one_line(tmp_path_factory, tmp_path, change, options, message):
    table = load_diabetes(as_frame=True).frame
    change(table).to_csv(tmp_path / "d.csv", index=False)
    assert message in refused("evaluate", _regressor(tmp_path_factory), tmp_path / "d.csv", *options)


def _regressor(factory, made=[]):  # noqa: B006 (one model for all cases)
    if not made:
        folder = factory.mktemp("regressor")
        load_diabetes(as_frame=True).frame.to_csv(folder / "d.csv", index=False)
        invoke("train", folder / "d.csv", "--target", "target", *QUICK, "-o", folder / "m.st")
        made.append(folder / "m.st")
    return made[0]


@pytest.mark.exhaustive
def test_many_classes_do_not_flood_the_terminal(tmp_path):
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"x": rng.normal(size=200), "y": [f"c{i % 20}" for i in range(200)]})
    table.to_csv(tmp_path / "d.csv", index=False)
    invoke("train", tmp_path / "d.csv", "--target", "y", *QUICK, "-o", tmp_path / "m.st")
    text = invoke("evaluate", tmp_path / "m.st", tmp_path / "d.csv").stdout
    assert "The confusion matrix of 20 classes is in --json." in text
    assert len(evaluated(tmp_path)["confusion_matrix"]) == 20
