"""What `fastmlp train` says is what it did: each statement of its report, compared with the fit."""

import json
import re
import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_diabetes, load_iris
from sklearn.impute import SimpleImputer
from sklearn.metrics import accuracy_score, r2_score
from sklearn.model_selection import KFold, StratifiedKFold, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from fastmlp import MLPClassifier, MLPRegressor, load
from fastmlp.cli import train as train_command
from fastmlp.persistence import read_metadata
from fastmlp.tabular import recipe
from fastmlp.tabular.reading import open_source
from fastmlp.tabular.staging import draw_validation

from shell import invoke, refused
from tiers import exhaustive

QUICK = ("--hidden", "6", "--random-state", "3", "--dtype", "float64")


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """A folder with tables of flowers and of values, each with a second file, an id and weights."""
    folder = tmp_path_factory.mktemp("tables")
    iris = load_iris(as_frame=True)
    flowers = iris.frame.assign(target=iris.target_names[iris.target]).iloc[20:]  # unequal classes
    for name, frame in (("flowers", flowers), ("values", load_diabetes(as_frame=True).frame)):
        frame = frame.sample(frac=1, random_state=0).assign(id=[f"{i:04d}" for i in range(len(frame))])
        frame["w"] = np.arange(len(frame)) % 3 / 2
        frame[:100].to_csv(folder / f"{name}.csv", index=False)
        frame[100:].to_csv(folder / f"{name}_valid.csv", index=False)
    return folder


# --- every statement --------------------------------------------------------------------------------------------------

FAST = ("--learning-rate-init", "0.05")
#: Name -> table and options of a training.
TRAININGS = {
    "nothing asked": ("flowers", ("--max-iter", "7")),
    "early stopping": ("flowers", ("--early-stopping", *FAST)),
    "early stopping by loss": ("flowers", ("--early-stopping", "--monitor", "loss", *FAST)),
    "early stopping by another score": ("flowers", ("--early-stopping", "--monitor", "neg_log_loss", *FAST)),
    "early stopping, all weights": ("flowers", ("--early-stopping", "--restore-best", "false", *FAST)),
    "the best weights of all epochs": (
        "flowers",
        ("--restore-best", "true", "--max-iter", "30", "--solver", "sgd", *FAST),
    ),
    "the last of the best weights": (
        "flowers",
        ("--restore-best", "last", "--max-iter", "30", "--solver", "sgd", *FAST),
    ),
    "block by block": ("flowers", ("--shuffle", "8", "--max-iter", "4")),
    "no validation": ("flowers", ("--valid", "0", "--max-iter", "5")),
    "a small share": ("flowers", ("--valid", "0.05", "--max-iter", "5")),
    "a file": ("flowers", ("--valid", "{}_valid.csv", "--early-stopping", *FAST)),
    "weights": ("flowers", ("--weight", "w", "--valid", "{}_valid.csv", "--max-iter", "9")),
    "weights, early stopping": ("flowers", ("--weight", "w", "--early-stopping", *FAST)),
    "no progress": ("flowers", ("--tol", "0.05", "--n-iter-no-change", "3", *FAST)),
    "adaptive rate": ("flowers", ("--solver", "sgd", "--learning-rate", "adaptive", "--tol", "0.1", *FAST)),
    "drop_last": ("flowers", ("--drop-last", "--batch-size", "32", "--max-iter", "4")),
    "lbfgs, limited": ("flowers", ("--solver", "lbfgs", "--max-iter", "5")),
    "lbfgs, converged": ("flowers", ("--solver", "lbfgs", "--max-iter", "5000", "--alpha", "1")),
    "hinge": ("flowers", ("--loss", "hinge", "--max-iter", "5")),
    "values": ("values", ("--max-iter", "7")),
    "values of a file": ("values", ("--valid", "{}_valid.csv", "--early-stopping", *FAST)),
    "values as they are": ("values", ("--no-scale-target", "--max-iter", "5")),
    "values, weights": ("values", ("--weight", "w", "--early-stopping", *FAST)),
    "values, lbfgs": ("values", ("--solver", "lbfgs", "--max-iter", "9")),
}
SPARED = (
    *("a small share", "early stopping by another score", "weights", "adaptive rate", "drop_last", "hinge", "values"),
    *("values of a file", "values as they are", "values, lbfgs"),
)


class Again:
    """The same training in memory, by pandas and the estimator's own fit."""

    def __init__(self, folder, table, model, report):
        self.kept, self.recipe = load(model), read_metadata(model)["table"]
        made = recipe.load(model)[1]
        rows = pd.read_csv(folder / f"{table}.csv")
        X = np.concatenate(list(made.blocks(open_source(folder / f"{table}.csv"), np.float64)))
        self.is_class = report["task"] == "classification"
        if "validation" in report:
            given = pd.read_csv(report["validation"])
            X_val = np.concatenate(list(made.blocks(open_source(report["validation"]), np.float64)))
            parts = (X, rows), (X_val, given)
        else:
            codes = pd.factorize(rows["target"])[0].astype(float) if self.is_class else rows["target"].to_numpy(float)
            share = 0.0 if not report["rows"]["validation"] else report["rows"]["validation"] / len(rows)
            held_out = draw_validation(codes, share, report["seed"], stratify=self.is_class)
            parts = (X[~held_out], rows[~held_out]), (X[held_out], rows[held_out])
        (self.X, self.rows), (self.X_val, self.rows_val) = parts
        self.lbfgs = self.kept.solver == "lbfgs"
        self.weighted = "weight" in report
        self.scaler = StandardScaler().fit(self.rows[["target"]]) if report["target_scaled"] else None

    def targets(self, rows):
        if self.scaler is not None:
            return self.scaler.transform(rows[["target"]])[:, 0]
        return rows["target"].to_numpy(object if self.is_class else float)

    def fit(self, **changed):
        """Fit anew, with other parameters if they are given."""
        given = {"sample_weight": self.rows["w"].to_numpy()} if self.weighted else {}
        if len(self.X_val) and not self.lbfgs:
            given |= {"X_val": self.X_val, "y_val": self.targets(self.rows_val)}
            if self.weighted:
                given["sample_weight_val"] = self.rows_val["w"].to_numpy()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return clone(self.kept).set_params(**changed).fit(self.X, self.targets(self.rows), **given)

    def weights(self, estimator):
        """The last layer as the model file has it: the scale of the target in it."""
        last = estimator.coefs_[-1]
        return last if self.scaler is None else last * self.scaler.scale_[0]


@pytest.mark.parametrize("name", [*(n for n in TRAININGS if n not in SPARED), *exhaustive(*SPARED)])
def test_every_statement_of_the_report_is_true(tables, tmp_path, capsys, name):
    table, options = TRAININGS[name]
    options = [str(tables / option.format(table)) if "{}" in option else option for option in options]
    model = tmp_path / "m.st"
    kept_apart = ("--id", "id", *(() if "w" in options else ("--drop", "w")))
    arguments = (tables / f"{table}.csv", "--target", "target", *kept_apart, *QUICK, *options)
    result = invoke("train", *arguments, "-o", model, "--json", tmp_path / "report.json")
    report = json.loads((tmp_path / "report.json").read_text())
    again = Again(tables, table, model, report)
    estimator = again.fit(verbose=True)
    said = capsys.readouterr().out

    # rows: what the epochs of the fit visited, and all rows of the file
    n_val = report["rows"]["validation"]
    n_file = len(pd.read_csv(tables / f"{table}.csv"))
    assert report["rows"]["training"] + (0 if "validation" in report else n_val) == n_file
    assert n_val == len(again.X_val)
    if not again.lbfgs and not estimator.drop_last:
        assert estimator.t_ == report["rows"]["training"] * report["epochs"]
    assert (report["metrics"]["of"] == "validation") == (n_val > 0)

    # epochs, the one whose weights are kept, its loss, and the end
    assert report["epochs"] == estimator.n_iter_ == again.kept.n_iter_
    assert report["unit"] == ("iterations" if again.lbfgs else "epochs")
    if again.lbfgs:
        # the targets are scaled by StandardScaler here, which rounds otherwise than the estimator
        assert report["loss"] == pytest.approx(estimator.loss_, rel=1e-12)
        assert report["ended"].startswith("the limit of" if "limited" in name or table == "values" else "convergence")
    else:
        kept = report["weights_of_epoch"]
        shorter = again.fit(max_iter=kept, restore_best=False)
        np.testing.assert_allclose(again.weights(shorter), again.kept.coefs_[-1], rtol=1e-12)
        assert report["loss"] == pytest.approx(shorter.loss_)
        _check_end(report, estimator, said)

    # columns, dtype, seed, parameters
    assert report["features"] == again.kept.n_features_in_ == again.kept.coefs_[0].shape[0] == report["columns"]
    assert again.kept.coefs_[0].dtype == report["dtype"]
    assert again.kept.random_state == report["seed"] == 3
    assert report["ids"] == again.recipe["ids"] == ["id"]
    assert again.recipe["training"] == {k: v for k, v in report.items() if k not in ("schema", "model", "data")}
    _check_metrics(report, again)
    _check_text(report, result)


def _check_end(report, estimator, said):
    """The estimator's own words, if it is asked for them."""
    if report["ended"].startswith("the limit of"):
        assert report["ended"] == f"the limit of {report['epochs']} epochs (--max-iter)"
        assert report["epochs"] == estimator.max_iter and "did not improve" not in said.splitlines()[-1]
        return
    last = said.splitlines()[-1]
    what = re.match(r"the (training loss|validation loss|validation score), which no longer", report["ended"])[1]
    assert last.lower().startswith(f"{what} did not improve more than tol={estimator.tol:f}")


def _check_metrics(report, again):
    rows, X = (again.rows_val, again.X_val) if len(again.X_val) else (again.rows, again.X)
    weight, predicted = rows["w"] if again.weighted else None, again.kept.predict(X)
    if again.is_class:
        assert report["metrics"]["accuracy"] == accuracy_score(rows["target"], predicted, sample_weight=weight)
    else:
        theirs = r2_score(rows["target"], predicted, sample_weight=weight)
        assert report["metrics"]["r2"] == pytest.approx(theirs, rel=1e-9)


def _check_text(report, result):
    """The tables have the numbers of the report, and nothing that it lacks."""
    text = " ".join(result.stdout.split())
    for name, value in report["metrics"].items():
        assert name == "of" or f"{train_command.NAMES[name]} {value:.4g}" in text
    assert f"{report['unit']} {report['epochs']}" in text and f"ended by {report['ended']}" in text
    kept = re.search(r"the weights are those of epoch (\d+)", text)
    assert (int(kept[1]) if kept else report["epochs"]) == report["weights_of_epoch"]
    source = f", the rows of {report['validation']}" if "validation" in report else ""
    shown = f"{report['rows']['training']} to train on, {report['rows']['validation']} to validate on{source}"
    assert " ".join(shown.split()) in text or "".join(shown.split()) in "".join(text.split())
    assert ("weights column w" in text) == ("weight" in report)
    assert report["reason"] in result.stderr


# --- early stopping without rows to validate on -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--early-stopping", "--valid", "0"), "--early-stopping needs rows to validate on, --valid 0 leaves none"),
        (("--early-stopping", "--solver", "lbfgs"), "--early-stopping makes no sense with --solver lbfgs"),
        (("--early-stopping", "--solver", '["lbfgs", {}]'), "--early-stopping makes no sense with --solver lbfgs"),
        (("--valid", "nan"), "--valid must be in [0, 1), or a data file, got nan"),
        (("--valid", "-0.1"), "--valid must be in [0, 1)"),
        (("--valid", "no.csv"), "no.csv: cannot be read: No such file"),
        (("--valid", "no"), "no: No such file or folder"),
        (("--weight", "target"), "--weight target is the target"),
        (("--id", "target"), "--id target is the target"),
        (("--weight", "id", "--id", "id"), "--weight id is a column of --drop or --id, too"),
        (("--weight", "x"), "no column 'x'"),
        (("--id", "x"), "no column 'x'"),
        (("--weight", "flower"), "row 1, column 'flower': "),
        (("--cv", "2000"), "--cv 2000 is more than the 80 training rows"),
        (("--cv", "79"), "--cv 79 is more than the rows of every class"),
    ],
)
def test_what_cannot_be_done_is_refused(tables, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    frame = pd.read_csv(tables / "flowers.csv").assign(flower="rose")
    frame.to_csv("d.csv", index=False)
    assert message in refused("train", "d.csv", "--target", "target", *QUICK, *options, "-o", "m.st", "-q")
    assert [path.name for path in tmp_path.iterdir()] == ["d.csv"]


def test_the_share_of_early_stopping_is_valid(tables, tmp_path):
    """One option says how many rows are held out: --valid."""
    result = invoke("train", tables / "flowers.csv", "--validation-fraction", "0.3", "-o", tmp_path / "m.st", code=2)
    assert "No such option" in result.output


# --- --valid FILE -----------------------------------------------------------------------------------------------------


def frames(n=80):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"a": rng.normal(size=n), "b": rng.choice(["u", "v"], n), "c": rng.random(n) < 0.5})
    return frame.assign(y=np.where(frame["a"] > 0, "yes", "no"))


def test_a_validation_file_decides_nothing_but_when_to_stop(tmp_path):
    """Statistics, categories, classes and the task are those of the training rows."""
    frame, other = frames(), frames().head(9)
    other["a"], other["b"] = 1000.0, "w"
    frame.to_csv(tmp_path / "d.csv", index=False)
    other[["y", "c", "b", "a"]].to_parquet(tmp_path / "v.parquet")
    options = ("--target", "y", *QUICK, "--max-iter", "5", "--quiet", "--max-categories", "2")
    invoke("train", tmp_path / "d.csv", *options, "--valid", tmp_path / "v.parquet", "-o", tmp_path / "a.st")
    invoke("train", tmp_path / "d.csv", *options, "--valid", "0", "-o", tmp_path / "b.st")
    (first, ours), (second, theirs) = recipe.load(tmp_path / "a.st"), recipe.load(tmp_path / "b.st")
    assert ours.columns == theirs.columns
    for a, b in zip(first.coefs_, second.coefs_, strict=True):
        np.testing.assert_array_equal(a, b)
    assert ours.training["rows"] == {"training": 80, "validation": 9}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v.drop(columns="a"), "v.csv: no column 'a'"),
        (lambda v: v.drop(columns="y"), "v.csv: no column 'y'"),
        (lambda v: v.assign(y=["maybe", *v["y"][1:]]), "v.csv: row 1, column 'y': 'maybe' is no class of the training"),
        (lambda v: v.assign(y=[None, *v["y"][1:]]), "v.csv: row 1, column 'y': the target is missing"),
        (lambda v: v.assign(a="x"), "v.csv: row 1, column 'a': 'x' is no number"),
        (lambda v: v[:0], "v.csv: has no rows"),
        (lambda v: v.assign(c=3), "v.csv: row 1, column 'c': '3' is neither true nor false"),
    ],
)
def test_errors_in_a_validation_file_name_it(tmp_path, change, message):
    frames().to_csv(tmp_path / "d.csv", index=False)
    change(frames(9)).to_csv(tmp_path / "v.csv", index=False)
    arguments = ("train", tmp_path / "d.csv", "--target", "y", *QUICK, "--valid", tmp_path / "v.csv")
    assert message in refused(*arguments, "-o", tmp_path / "m.st")


def test_classes_that_are_numbers_are_compared_before_they_are_whole(tmp_path):
    frames().assign(y=np.arange(80) % 3).to_csv(tmp_path / "d.csv", index=False)
    frames(9).assign(y=1.5).to_csv(tmp_path / "v.csv", index=False)
    arguments = ("train", tmp_path / "d.csv", "--target", "y", *QUICK, "--valid", tmp_path / "v.csv")
    assert "row 1, column 'y': 1.5 is no class" in refused(*arguments, "-o", tmp_path / "m.st")


# --- --weight and --id ------------------------------------------------------------------------------------------------


def test_weights_are_those_of_fit_and_no_feature(tables, tmp_path):
    """A row of weight 2 counts as two rows; predictions need no weights."""
    frame = frames().assign(w=np.arange(80) % 3)
    frame.to_csv(tmp_path / "d.csv", index=False)
    repeated = frame.loc[np.repeat(frame.index, frame["w"])].drop(columns="w")
    repeated.to_csv(tmp_path / "r.csv", index=False)
    options = ("--target", "y", *QUICK, "--solver", "lbfgs", "--alpha", "0", "--max-iter", "8", "--valid", "0", "-q")
    invoke("train", tmp_path / "d.csv", "--weight", "w", *options, "-o", tmp_path / "m.st")
    estimator, made = recipe.load(tmp_path / "m.st")
    assert made.features == ["a", "c", "b=u", "b=v"]
    X = np.concatenate(list(made.blocks(open_source(tmp_path / "r.csv"), np.float64)))
    again = clone(estimator)
    with pytest.warns(UserWarning, match="failed to converge"):
        again.fit(X, repeated["y"].to_numpy(object))
    for ours, theirs in zip(estimator.coefs_, again.coefs_, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-9)
    invoke("predict", tmp_path / "m.st", tmp_path / "r.csv", "-o", tmp_path / "p.csv")


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (lambda w: w - 1, "row 1, column 'w': -1 is no weight, which is 0 or more"),
        (lambda w: w.where(w.index != 4, None), "row 5, column 'w': the weight is missing"),
        (lambda w: w * 0, "the weights of all 80 training rows are 0"),
        (lambda w: w.where(w.index != 4, np.inf), "row 5, column 'w': inf is no number"),
        (lambda w: w.astype(str) + "x", "row 1, column 'w': '0.0x' is no number"),
    ],
)
def test_weights_that_are_none(tmp_path, weights, message):
    frames().assign(w=weights(pd.Series(np.arange(80.0)))).to_csv(tmp_path / "d.csv", index=False)
    arguments = ("train", tmp_path / "d.csv", "--target", "y", *QUICK, "--weight", "w", "--valid", "0")
    assert message in refused(*arguments, "-o", tmp_path / "m.st")


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_ids_are_repeated_by_predict_as_they_are(tmp_path, ending):
    frame = frames().assign(key=[f"{i:03d}" for i in range(80)], number=range(80))
    write = {".csv": lambda f, p: f.to_csv(p, index=False), ".parquet": lambda f, p: f.to_parquet(p)}[ending]
    data = tmp_path / f"d{ending}"
    write(frame, data)
    ids = ("--id", "key", "--id", "number")
    invoke("train", data, "--target", "y", *ids, *QUICK, "--max-iter", "5", "-q", "-o", tmp_path / "m.st")
    assert recipe.load(tmp_path / "m.st")[1].features == ["a", "c", "b=u", "b=v"]
    out = tmp_path / f"p{ending}"
    read = {".csv": lambda p: pd.read_csv(p, dtype={"key": str}), ".parquet": pd.read_parquet}[ending]

    invoke("predict", tmp_path / "m.st", data, "-o", out)
    found = read(out)
    assert list(found) == ["key", "number", "y"]
    pd.testing.assert_frame_equal(found[["key", "number"]], frame[["key", "number"]], check_dtype=ending == ".parquet")

    invoke("predict", tmp_path / "m.st", data, "--id", "a", "-o", out)
    found = read(out)
    assert list(found) == ["a", "y"]  # a feature, too
    np.testing.assert_allclose(found["a"], frame["a"])

    write(frame.drop(columns="key"), data)
    result = invoke("predict", tmp_path / "m.st", data, "-o", out)
    assert list(read(out)) == ["number", "y"]
    assert "no column 'key', the --id of the training: the predictions have none either" in result.stderr
    assert "no column 'key'" in refused("predict", tmp_path / "m.st", data, "--id", "key", "-o", out)
    write(frame.assign(y=1), data)
    assert "--id y is the name of a column of predictions" in refused("predict", tmp_path / "m.st", data, "--id", "y")


# --- --cv -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_cross_validation_is_scikit_learns(tmp_path, task):
    """Scaler, imputer and categories are fitted within the folds: a pipeline's cross_validate gives the same scores."""
    frame = frames(90)
    frame.loc[::7, "a"] = np.nan
    frame.loc[3, "b"] = "rare"  # in one fold only
    y = frame.pop("y") if task == "classification" else frame.pop("y").eq("yes") + frame["a"].fillna(0)
    frame = frame.drop(columns="c")
    frame.assign(y=y).to_csv(tmp_path / "d.csv", index=False)
    options = ("--target", "y", *QUICK, "--max-iter", "15", "--valid", "0", "--no-scale-target", "--cv", "4")
    result = invoke("train", tmp_path / "d.csv", *options, "-o", tmp_path / "m.st", "--json", tmp_path / "r.json")
    ours = json.loads((tmp_path / "r.json").read_text())["cross_validation"]

    numbers = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
    columns = ColumnTransformer([("a", numbers, ["a"]), ("b", OneHotEncoder(handle_unknown="ignore"), ["b"])])
    cls, folds = (MLPClassifier, StratifiedKFold) if task == "classification" else (MLPRegressor, KFold)
    pipeline = make_pipeline(columns, cls(hidden_layer_sizes=(6,), max_iter=15, random_state=3))
    scoring = {"accuracy": "accuracy", "log_loss": "neg_log_loss"} if task == "classification" else {
        "r2": "r2", "rmse": "neg_root_mean_squared_error"}  # fmt: skip
    cut = folds(4, shuffle=True, random_state=3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = cross_validate(pipeline, pd.read_csv(tmp_path / "d.csv"), y, cv=cut, scoring=scoring)
    assert ours["folds"] == 4
    for name, scorer in scoring.items():
        scores = theirs[f"test_{name}"] * (-1 if scorer.startswith("neg") else 1)
        assert ours["of_each"][name] == pytest.approx(scores.tolist(), rel=1e-6)
        assert ours["mean"][name] == pytest.approx(scores.mean())
        assert ours["std"][name] == pytest.approx(scores.std(), rel=1e-5)
        assert f"{ours['mean'][name]:.4g}" in result.stdout and f"{ours['std'][name]:.4g}" in result.stdout
    assert "4-fold mean" in result.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["d.csv", "m.st", "r.json"]


def test_cross_validation_does_not_change_the_model(tables, tmp_path):
    """Neither the model nor the rows held out for validation, which are in no fold."""
    options = ("--target", "target", "--drop", "id", "--drop", "w", *QUICK, "--early-stopping", *FAST, "-q")
    invoke("train", tables / "flowers.csv", *options, "-o", tmp_path / "a.st")
    invoke("train", tables / "flowers.csv", *options, "--cv", "3", "-o", tmp_path / "b.st")
    first, second = (read_metadata(tmp_path / f"{name}.st")["table"]["training"] for name in "ab")
    assert first["metrics"] == second["metrics"] and first["rows"] == second["rows"]
    for a, b in zip(load(tmp_path / "a.st").coefs_, load(tmp_path / "b.st").coefs_, strict=True):
        np.testing.assert_array_equal(a, b)
    assert len(second["cross_validation"]["of_each"]["accuracy"]) == 3


def test_the_only_row_of_a_class_is_in_no_fold(tmp_path):
    frame = frames(60)
    frame.loc[0, "y"] = "once"
    frame.to_csv(tmp_path / "d.csv", index=False)
    options = ("--target", "y", *QUICK, "--max-iter", "5", "--valid", "0", "--cv", "3", "-q")
    invoke("train", tmp_path / "d.csv", *options, "-o", tmp_path / "m.st")
    scores = read_metadata(tmp_path / "m.st")["table"]["training"]["cross_validation"]
    assert len(scores["of_each"]["log_loss"]) == 3 and np.isfinite(scores["of_each"]["log_loss"]).all()
