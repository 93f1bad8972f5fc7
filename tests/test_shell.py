"""fastmlp train, predict, show and export: what they write, and how they say no."""

import inspect
import json
import re
import signal
import subprocess
import sys
import threading

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.datasets import load_iris
from sklearn.metrics import accuracy_score, log_loss, r2_score
from typer.testing import CliRunner

from fastmlp import MLPClassifier, MLPRegressor, RealMLPClassifier, TabMRegressor, load
from fastmlp.cli import parameters, train
from fastmlp.cli.app import app
from fastmlp.cli.export import unscaled
from fastmlp.persistence import read_metadata, save
from fastmlp.tabular import recipe
from fastmlp.tabular.reading import open_source
from fastmlp.tabular.staging import draw_validation

from shell import invoke, refused

QUICK = ("--hidden", "8", "--max-iter", "5", "--random-state", "0")


@pytest.fixture(scope="module")
def wine(tmp_path_factory):
    """A folder with a table of numbers, texts and truths, its rows in wine.csv."""
    folder = tmp_path_factory.mktemp("wine")
    rng = np.random.default_rng(0)
    n = 300
    table = pd.DataFrame(
        {
            "alcohol": rng.normal(12, 1, n).round(2),
            "colour": rng.choice(["red", "white", "rosé"], n),
            "organic": rng.random(n) < 0.4,
            "sugar": rng.gamma(2, 4, n).round(1),
        }
    )
    merit = table["alcohol"] - 12 + (table["colour"] == "red") - 0.1 * table["sugar"]
    table["quality"] = np.select([merit > 0, merit > -0.7], ["good", "fair"], "poor")
    table["points"] = (80 + 5 * merit).round(2)
    table.loc[::17, "sugar"] = np.nan
    table.loc[::19, "colour"] = None
    table.to_csv(folder / "wine.csv", index=False)
    return folder


@pytest.fixture(scope="module")
def classifier(wine):
    """The model file of a classifier of wine.csv."""
    path = wine / "quality.safetensors"
    options = ("--target", "quality", "--drop", "points", "--dtype", "float64", "--hidden", "16", "--max-iter", "40")
    invoke("train", wine / "wine.csv", *options, "--learning-rate-init", "0.02", "--random-state", 1, "-o", path)
    return path


@pytest.fixture(scope="module")
def regressor(wine):
    """The model file of a regressor of wine.csv; its columns are numbers."""
    path = wine / "points.safetensors"
    options = ("--target", "points", "--drop", "quality", "--drop", "colour", "--drop", "organic", "--dtype", "float64")
    invoke("train", wine / "wine.csv", *options, *QUICK, "--max-iter", "150", "-o", path)
    return path


# --- train ------------------------------------------------------------------------------------------------------------


def test_train_writes_a_model_and_says_how_good_it_is(wine, tmp_path):
    model, plot, numbers = tmp_path / "m.safetensors", tmp_path / "curves.png", tmp_path / "m.json"
    options = ("--target", "quality", "--drop", "points", *QUICK, "--activation", "tanh", "--shuffle", "false")
    result = invoke("train", wine / "wine.csv", *options, "-o", model, "--json", numbers, "--plot", plot)
    assert "classification: 'quality' holds 3 different texts" in result.stderr
    assert "Maximum iterations (5) reached" in result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["curves.png", "m.json", "m.safetensors"]
    assert plot.read_bytes().startswith(b"\x89PNG")

    report = json.loads(numbers.read_text())
    assert report["task"] == "classification" and report["classes"] == ["fair", "good", "poor"]
    assert report["rows"] == {"training": 240, "validation": 60}
    assert (report["columns"], report["features"], report["epochs"], report["seed"]) == (4, 6, 5, 0)
    metrics = report["metrics"]
    assert re.search(rf"accuracy +{metrics['accuracy']:.4g}".replace(".", r"\."), result.stdout)
    assert read_metadata(model)["table"]["training"] == {k: v for k, v in report.items() if k in TRAINING}

    estimator = load(model)
    assert isinstance(estimator, MLPClassifier)
    given = {"hidden_layer_sizes": (8,), "max_iter": 5, "random_state": 0, "activation": "tanh", "shuffle": False}
    assert estimator.get_params() == MLPClassifier(**given).get_params()
    assert estimator.coefs_[0].dtype == np.float32


TRAINING = (
    *(
        "task",
        "reason",
        "target",
        "classes",
        "rows",
        "network",
        "columns",
        "features",
        "dtype",
        "seed",
        "target_scaled",
    ),
    *("left_out", "notes", "epochs", "unit", "weights_of_epoch", "ended", "loss", "metrics", "seconds", "versions"),
)


def test_train_is_the_fit_of_the_estimator_on_the_same_rows(wine, classifier):
    """Weights, metrics and history are those of fit in memory, on the rows that the seed draws."""
    estimator, made = recipe.load(classifier)
    X = np.concatenate(list(made.blocks(open_source(wine / "wine.csv"), np.float64)))
    y = pd.read_csv(wine / "wine.csv")["quality"].to_numpy(object)
    codes = pd.factorize(y)[0].astype(float)
    held_out = draw_validation(codes, 0.2, 1, stratify=True)
    again = MLPClassifier((16,), max_iter=40, learning_rate_init=0.02, random_state=1)
    with pytest.warns(UserWarning, match="Maximum iterations"):
        again.fit(X[~held_out], y[~held_out], X_val=X[held_out], y_val=y[held_out])
    for ours, theirs in zip(estimator.coefs_ + estimator.intercepts_, again.coefs_ + again.intercepts_, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert estimator.history_["validation_loss"] == again.history_["validation_loss"]
    metrics = made.training["metrics"]
    assert metrics["accuracy"] == accuracy_score(y[held_out], again.predict(X[held_out]))
    assert metrics["log_loss"] == pytest.approx(log_loss(y[held_out], again.predict_proba(X[held_out])))
    assert metrics["accuracy"] > 0.6


def test_the_same_seed_gives_the_same_file_and_no_seed_is_reported(wine, tmp_path):
    def weights(name, *options):
        arguments = ("--target", "points", "--drop", "quality", "--hidden", "4", "--max-iter", "3", *options)
        result = invoke("train", wine / "wine.csv", *arguments, "-o", tmp_path / name, "--json", "-")
        return json.loads(result.stdout)["seed"], load(tmp_path / name).coefs_[0]

    seed, first = weights("a.safetensors")
    again, second = weights("b.safetensors", "--random-state", str(seed))
    assert seed == again and (first == second).all()
    assert weights("c.safetensors")[0] != seed


def test_a_scaled_target_is_scaled_back_in_the_last_layer(wine, regressor):
    """Predictions are in the units of the file, and as good as the metrics say."""
    estimator, made = recipe.load(regressor)
    points = pd.read_csv(wine / "wine.csv")["points"]
    X = np.concatenate(list(made.blocks(open_source(wine / "wine.csv"), np.float64)))
    predicted = estimator.predict(X)
    assert abs(predicted.mean() - points.mean()) < 1 and r2_score(points, predicted) > 0.5
    assert made.training["target_scaled"] is True
    assert abs(made.training["metrics"]["r2"] - r2_score(points, predicted)) < 0.3
    assert made.training["loss"] < 1  # of the scaled target


@pytest.mark.parametrize(
    ("options", "scaled"),
    [((), True), (("--no-scale-target",), False), (("--loss", "poisson"), False), (("--loss", "huber"), True)],
)
def test_only_linear_outputs_are_scaled(wine, tmp_path, options, scaled):
    arguments = ("--target", "points", "--drop", "quality", *QUICK, *options, "-o", tmp_path / "m.safetensors")
    result = invoke("train", wine / "wine.csv", *arguments, "--json", "-")
    assert json.loads(result.stdout)["target_scaled"] is scaled


@pytest.mark.parametrize(
    ("options", "metrics"),
    [
        (("--solver", "lbfgs"), {"of", "accuracy", "log_loss"}),
        (("--loss", "hinge"), {"of", "accuracy"}),
        (("--valid", "0"), {"of", "accuracy", "log_loss"}),
        (
            ("--early-stopping", "--batch-norm", "true", "--hidden", "8,4", "--dropout", "[0.1, 0]"),
            {"of", "accuracy", "log_loss"},
        ),
        (("--activation", '["elu", {"alpha": 0.5}]', "--learning-rate", "cosine"), {"of", "accuracy", "log_loss"}),
        (("--hidden", "none", "--class-weight", "balanced"), {"of", "accuracy", "log_loss"}),
        (
            ("--solver", '["rmsprop", {"rho": 0.9}]', "--loss", '["log_loss", {"label_smoothing": 0.1}]'),
            {"of", "accuracy", "log_loss"},
        ),
        (("--solver", '["lbfgs", {}]'), {"of", "accuracy", "log_loss"}),
    ],
)
def test_options_reach_the_estimator(wine, tmp_path, options, metrics):
    arguments = ("--target", "quality", "--drop", "points", *QUICK, *options, "-o", tmp_path / "m.safetensors")
    report = json.loads(invoke("train", wine / "wine.csv", *arguments, "--json", "-").stdout)
    assert set(report["metrics"]) == metrics
    assert report["metrics"]["of"] == ("training" if "--valid" in options else "validation")
    estimator = load(tmp_path / "m.safetensors")
    given = dict(zip(options[::2], options[1::2], strict=False))
    for option, value in given.items():
        name = option[2:].replace("-", "_")
        if option.startswith("--") and name in estimator.get_params() and not value.startswith("--"):
            found = estimator.get_params()[name]
            assert found == parameters.value_of(value) or list(found) == parameters.value_of(value)


def test_truths_and_numbers_as_classes(tmp_path):
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"x": rng.normal(size=80), "truth": rng.random(80) < 0.5, "digit": rng.integers(3, 6, 80)})
    table.to_csv(tmp_path / "t.csv", index=False)
    for target, classes in (("truth", [False, True]), ("digit", [3, 4, 5])):
        invoke("train", tmp_path / "t.csv", "--target", target, *QUICK, "-o", tmp_path / "m.safetensors")
        assert load(tmp_path / "m.safetensors").classes_.tolist() == classes
        invoke("predict", tmp_path / "m.safetensors", tmp_path / "t.csv", "-o", tmp_path / "p.csv", "--proba")
        predicted = pd.read_csv(tmp_path / "p.csv")
        assert set(predicted[target]) <= set(classes)
        assert list(predicted)[1:] == [f"proba_{str(label).lower()}" for label in classes]


def test_npz_needs_no_target(tmp_path):
    X, y = load_iris(return_X_y=True)
    np.savez(tmp_path / "iris.npz", X=X, y=y)
    options = ("--learning-rate-init", "0.05", "--max-iter", "40", "--random-state", "0", "--quiet")
    result = invoke("train", tmp_path / "iris.npz", *options, "-o", tmp_path / "m.safetensors")
    assert not result.stdout
    assert read_metadata(tmp_path / "m.safetensors")["table"]["training"]["metrics"]["accuracy"] > 0.85
    np.savez(tmp_path / "new.npz", X=X[:7])
    result = invoke("predict", tmp_path / "m.safetensors", tmp_path / "new.npz")
    assert result.stdout.split() == ['"y"', *["0"] * 7]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "--target must name the column to predict; it has 'alcohol', 'colour'"),
        (("--target", "qualty"), "no column 'qualty' (did you mean 'quality'?)"),
        (("--target", "quality", "--drop", "quality"), "--drop quality is the target"),
        (("--target", "quality", "--drop", "x"), "no column 'x'"),
        (("--target", "quality", "--kind", "x"), "--kind must be COLUMN=KIND"),
        (("--target", "quality", "--kind", "colour=numeric"), "row 2, column 'colour': "),
        (("--target", "quality", "--max-categories", "2"), "column 'colour' has more than 2 different texts"),
        (("--target", "quality", "--task", "x"), "--task must be one of auto, classification, regression, got 'x'"),
        (("--target", "quality", "--task", "regression"), "no values for --task regression"),
        (("--target", "quality", "--hidden", "a"), "--hidden must be whole numbers"),
        (("--target", "quality", "--hidden", "0"), "hidden_layer_sizes must be > 0"),
        (("--target", "quality", "--valid", "1"), "--valid must be in [0, 1)"),
        (("--target", "quality", "--dtype", "int"), "--dtype must be one of float32, float64"),
        (("--target", "quality", "--plot", "x.txt"), "--plot must end in"),
        (("--target", "quality", "--plot", "x.png", "--solver", "lbfgs"), "lbfgs has no epochs to draw"),
        (("--target", "quality", "--plot", "x.png", "--solver", '["lbfgs", {}]'), "lbfgs has no epochs to draw"),
        (("--target", "quality", "--solver", '["rmsprop", {"rho": 2}]'), "rho must be in [0, 1), got 2"),
        (("--target", "quality", "--solver", '["adam", {"rho": 0.9}]'), "'adam' has no parameter 'rho'"),
        (("--target", "quality", "--loss", '["focal", {"label_smoothing": 0.1}]'), "'focal' has no parameter"),
        (("--target", "quality", "--separator", ",,"), "--separator must be one ASCII character"),
        (("--target", "quality", "--alpha", "x"), "The 'alpha' parameter of MLPClassifier must be a float"),
        (("--target", "quality", "--activation", '["elu", {"a": 1}]'), "'elu' has no parameter 'a'"),
        (("--target", "quality", "--dropout", "[0.1, 0.2]"), "dropout must be one rate, or one per hidden layer, 1"),
        (("--target", "quality", "--solver", "lbfgs", "--batch-norm", "true"), "makes no sense with solver='lbfgs'"),
        (("--target", "quality", "--loss", "huber"), "The 'loss' parameter of MLPClassifier"),
        (("--target", "quality", "--encoding", "utf-16"), "wine.csv: "),
    ],
)
def test_train_refuses_in_one_line_and_writes_nothing(wine, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    assert message in refused("train", wine / "wine.csv", *options, *QUICK[2:], "-o", "m.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_parameters_are_judged_before_the_file_is_read(tmp_path):
    line = refused("train", tmp_path / "no.csv", "--target", "y", "--alpha", "-1", "-o", tmp_path / "m.safetensors")
    assert "'alpha'" in line
    line = refused("train", tmp_path / "no.csv", "--target", "y", "-o", tmp_path / "m.safetensors")
    assert "No such file" in line
    for output in (tmp_path / "no" / "m.safetensors", tmp_path, "-"):
        result = invoke("train", tmp_path / "no.csv", "--target", "y", "-o", output, code=2)
        assert "'--output'" in result.output


@pytest.mark.parametrize("watched", [(), ("--early-stopping",), ("--early-stopping", "--monitor", "loss")], ids=len)
def test_training_that_diverges_ends_with_1(wine, tmp_path, watched):
    options = ("--target", "points", "--drop", "quality", "--solver", "sgd", "--learning-rate-init", "1e30", *watched)
    options = (*options, "--activation", "identity", "--batch-size", "5")
    line = refused("train", wine / "wine.csv", *options, *QUICK, "-o", tmp_path / "m.safetensors", code=1)
    assert line.startswith("training diverged: ")
    assert list(tmp_path.iterdir()) == []


def test_missing_packages_are_named(wine, tmp_path, monkeypatch):
    for package, extra in (("pyarrow", "files"), ("safetensors", "files"), ("matplotlib.figure", "plot")):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, package, None)
            line = refused(
                "train", wine / "wine.csv", "--target", "quality", "--plot", tmp_path / "p.png", "-o", tmp_path / "m.st"
            )
            assert f'pip install "fastmlp[{extra}]"' in line


def test_ctrl_c_leaves_nothing(wine, tmp_path, monkeypatch):
    """While the fit runs: fit itself would keep what it has, the command keeps nothing."""
    fit = MLPClassifier.fit

    def interrupted(*arguments, **more):
        assert list(tmp_path.glob(".*/X.npy"))
        threading.Timer(0.2, signal.raise_signal, [signal.SIGINT]).start()
        return fit(*arguments, **more)

    monkeypatch.setattr(MLPClassifier, "fit", interrupted)
    options = ("--target", "quality", "--max-iter", "1000000", "--tol", "0", "--n-iter-no-change", "inf")
    arguments = map(str, ("train", wine / "wine.csv", *options, "-o", tmp_path / "m.st"))
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code in (1, 130)  # the former with older versions of typer
    assert list(tmp_path.iterdir()) == []


def test_every_parameter_has_an_option():
    classes = [cls for model in parameters.MODELS for cls in parameters.estimators(model).values()]
    assert {MLPClassifier, MLPRegressor, RealMLPClassifier, TabMRegressor} <= set(classes)
    names = {name for cls in classes for name in inspect.signature(cls).parameters}
    assert set(parameters._options()) == names - set(parameters.LEFT_OUT)
    text = " ".join(invoke("train", "--help").stdout.split())
    assert "Examples:" in text and "--weight-decay" in text and "--no-early-stopping" in text


@pytest.mark.parametrize("command", ["predict", "evaluate", "show", "export"])
def test_help_has_examples(command):
    text = " ".join(invoke(command, "--help").stdout.split())
    assert "Examples:" in text and f"fastmlp {command}" in text


def test_names_of_parameters_are_completed():
    found = parameters._options()["solver"].annotation.__metadata__[0].autocompletion("adam")
    assert found == ["adam", "adamw"]


def test_version_does_not_wait_for_scikit_learn():
    code = """
import sys
from typer.testing import CliRunner
from fastmlp.cli.app import app
CliRunner().invoke(app, ["--version"])
late = {"sklearn", "pyarrow", "pandas", "matplotlib"} & set(sys.modules)
assert not late, late
"""
    subprocess.run([sys.executable, "-c", code], check=True)


# --- predict ----------------------------------------------------------------------------------------------------------


def expected(model, data):
    """Predictions of the loaded estimator for the features of its transformer."""
    estimator, made = recipe.load(model)
    X = np.concatenate(list(made.blocks(open_source(data), estimator.coefs_[0].dtype)))
    return estimator, X


@pytest.mark.parametrize("ending", [".csv", ".parquet", ".arrow", ".feather"])
def test_predictions_are_those_of_the_estimator(wine, classifier, tmp_path, monkeypatch, ending):
    monkeypatch.setattr("fastmlp.tabular.reading.BATCH_ROWS", 37)  # many blocks
    out = tmp_path / f"p{ending}"
    result = invoke("predict", classifier, wine / "wine.csv", "--proba", "-o", out, "--json", "-")
    assert json.loads(result.stdout)["rows"] == 300
    read = {".csv": pd.read_csv, ".parquet": pd.read_parquet}.get(ending, pd.read_feather)
    found = read(out)
    estimator, X = expected(classifier, wine / "wine.csv")
    assert found["quality"].tolist() == estimator.predict(X).tolist()
    assert list(found) == ["quality", "proba_fair", "proba_good", "proba_poor"]
    np.testing.assert_allclose(found.iloc[:, 1:], estimator.predict_proba(X), rtol=1e-12)
    assert [path.name for path in tmp_path.iterdir()] == [out.name]


def test_columns_are_found_by_name_and_new_texts_reported(wine, regressor, classifier, tmp_path):
    table = pd.read_csv(wine / "wine.csv").head(9)
    shuffled = table[["sugar", "quality", "organic", "alcohol", "colour"]].assign(more=1)
    shuffled.to_parquet(tmp_path / "t.parquet")
    plain = invoke("predict", regressor, wine / "wine.csv").stdout.splitlines()[:10]
    assert invoke("predict", regressor, tmp_path / "t.parquet").stdout.splitlines() == plain

    shuffled["colour"] = ["green", "green", "blue", *table["colour"][3:]]
    shuffled.to_csv(tmp_path / "t.csv", index=False)
    result = invoke("predict", classifier, tmp_path / "t.csv", "-o", tmp_path / "p.csv", "--json", tmp_path / "p.json")
    assert "column 'colour': 3 rows have texts that training did not see ('green', 'blue'), taken as" in result.stderr
    assert json.loads((tmp_path / "p.json").read_text())["unseen"] == {"colour": 3}
    line = refused("predict", classifier, tmp_path / "t.csv", "--unknown", "error")
    assert "row 1, column 'colour': 'green' is no category that training saw" in line


def test_the_dialect_of_training_is_kept(tmp_path):
    table = pd.DataFrame({"x": [1, 2, "?", 4, 5, 6] * 5, "y": ["a", "b", "a", "b", "b", "b"] * 5})
    table.to_csv(tmp_path / "t.csv", index=False, sep="\t")
    model = tmp_path / "m.safetensors"
    invoke("train", tmp_path / "t.csv", "--target", "y", "--missing", "?", "--separator", "tab", *QUICK, "-o", model)
    table.to_csv(tmp_path / "t.csv", index=False, sep=";")
    assert len(invoke("predict", model, tmp_path / "t.csv").stdout.splitlines()) == 31
    assert "row 3, column 'x': '?' is no number" in refused("predict", model, tmp_path / "t.csv", "--missing", "!")


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("alcohol,colour\n1,red\n", (), "no column 'organic', 'sugar'; it has 'alcohol', 'colour'"),
        ("alcohol,colour,organic,suger\n1,red,true,1\n", (), "no column 'sugar' (did you mean 'suger'?)"),
        ("", (), "is empty"),
        ("alcohol,colour,organic,sugar\n1,red,true,1\n1,red,true,much\n", (), "row 2, column 'sugar': 'much' is no"),
        ("alcohol,colour,organic,sugar\n1,red,2,1\n", (), "row 1, column 'organic': '2' is neither true nor false"),
        ("alcohol,colour,organic,sugar\n1,red,true\n", (), "row 1 has 3 fields, the header has 4"),
        ("alcohol,colour,organic,sugar\n1,red,true,1\n", ("--unknown", "x"), "--unknown must be ignore or error"),
        ("alcohol,colour,organic,sugar\n1,red,true,1\n", ("-o", "x.txt"), "--output must end in .csv, .parquet"),
        ("alcohol,colour,organic,sugar\n1,red,true,1\n", ("--json", "-"), "cannot both be standard output"),
    ],
)
def test_predict_refuses_in_one_line_and_writes_nothing(classifier, tmp_path, text, options, message):
    data, out = tmp_path / "t.csv", tmp_path / "p.csv"
    data.write_text(text)
    out.write_text("old")
    arguments = () if "-o" in options or "-" in options else ("-o", out)
    assert message in refused("predict", classifier, data, *arguments, *options)
    assert out.read_text() == "old" and len(list(tmp_path.iterdir())) == 2


def test_regressions_have_no_probabilities(wine, regressor):
    assert "--proba: a regression has no probabilities" in refused("predict", regressor, wine / "wine.csv", "--proba")


def test_files_that_are_no_models(wine, tmp_path):
    other = tmp_path / "m.safetensors"
    for command in ("predict", "show", "export"):
        data = (wine / "wine.csv",) if command == "predict" else ()
        rest = ("--c", tmp_path / "m.c") if command == "export" else ()
        assert "No such file" in refused(command, tmp_path / "no", *data, *rest)
        other.write_bytes(b"hello")
        assert str(other) in refused(command, other, *data, *rest)
    estimator = MLPClassifier((4,), solver="lbfgs", max_iter=300).fit(*load_iris(return_X_y=True))
    save(estimator, other)
    assert "`fastmlp train` did not write it" in refused("predict", other, wine / "wine.csv")
    assert "MLPClassifier 4-4-3" in invoke("show", other).stdout


def test_metadata_that_does_not_fit_the_network(classifier, tmp_path):
    estimator, metadata = load(classifier), read_metadata(classifier)
    metadata["table"]["columns"] = metadata["table"]["columns"][:1]
    save(estimator, tmp_path / "m.safetensors", metadata=metadata)
    assert "its columns make 1 features, its network takes 6" in refused("show", tmp_path / "m.safetensors")
    metadata = read_metadata(classifier)
    metadata["table"]["task"] = "regression"
    save(estimator, tmp_path / "m.safetensors", metadata=metadata)
    assert "its task is regression, its network is a MLPClassifier" in refused("show", tmp_path / "m.safetensors")


# --- show -------------------------------------------------------------------------------------------------------------


def test_show_says_what_is_in_the_file(classifier):
    text = " ".join(invoke("show", classifier).stdout.split())
    for part in ("MLPClassifier 6-16-3, float64", "max_iter 40", "colour categorical red, rosé, white", "log loss 0."):
        assert part in text, part
    document = json.loads(invoke("show", classifier, "--json", "-").stdout)
    assert document["features"] == ["alcohol", "sugar", "organic", "colour=red", "colour=rosé", "colour=white"]
    assert document["parameters"] == {
        "hidden_layer_sizes": [16],
        "learning_rate_init": 0.02,
        "max_iter": 40,
        "random_state": 1,
    }
    assert document["training"] == read_metadata(classifier)["table"]["training"]
    assert document["network"]["n_params"] == 6 * 16 + 16 + 16 * 3 + 3


# --- export -----------------------------------------------------------------------------------------------------------


def test_exported_networks_take_the_numbers_of_the_file(wine, regressor, tmp_path):
    onnx = pytest.importorskip("onnx")
    from onnx.reference import ReferenceEvaluator

    path = tmp_path / "points.onnx"
    result = invoke("export", regressor, "--onnx", path, "--c", tmp_path / "points.c", "--name", "points")
    assert re.search(r"0 +alcohol +the number +1[12]\.", result.stdout)
    assert "points_predict" in (tmp_path / "points.c").read_text()
    table = pd.read_csv(wine / "wine.csv")
    estimator, X = expected(regressor, wine / "wine.csv")
    made = recipe.load(regressor)[1]
    raw = table[["alcohol", "sugar"]].fillna(made.columns[1].median).to_numpy()
    (found,) = ReferenceEvaluator(onnx.load(path)).run(["variable"], {"X": raw})
    np.testing.assert_allclose(found.ravel(), estimator.predict(X), rtol=1e-9)


def test_exported_classifiers_take_one_input_per_category(wine, classifier):
    estimator, made = recipe.load(classifier)
    converted = unscaled(estimator, made.columns)
    table = pd.read_csv(wine / "wine.csv").dropna()
    colours = [table["colour"] == colour for colour in ("red", "rosé", "white")]
    raw = np.column_stack([table["alcohol"], table["sugar"], table["organic"], *colours]).astype(float)
    X = expected(classifier, wine / "wine.csv")[1][table.index]
    np.testing.assert_allclose(converted.predict_proba(raw), estimator.predict_proba(X), rtol=1e-9)
    assert not np.allclose(estimator.coefs_[0], converted.coefs_[0])  # the one in the file is as it was
    listed = json.loads(
        invoke("export", classifier, "--c", wine / "m.c", "--json", "-").stdout,
    )["inputs"]
    assert [entry["name"] for entry in listed] == made.features
    assert [entry["if_missing"] for entry in listed][2:] == [
        0,
        *(int(c == made.columns[1].most_frequent) for c in range(3)),
    ]


def test_truths_are_exported_as_whole_numbers(tmp_path):
    table = pa.table({"x": np.arange(40.0), "y": np.arange(40) > 20})
    pq.write_table(table, tmp_path / "t.parquet")
    model = tmp_path / "m.safetensors"
    invoke("train", tmp_path / "t.parquet", "--target", "y", *QUICK, "-o", model)
    assert unscaled(*[load(model), []]).classes_.tolist() == [0, 1]
    invoke("export", model, "--c", tmp_path / "m.c", "--quiet")


def test_export_needs_something_to_write(classifier):
    assert "nothing to write" in refused("export", classifier)


def test_report_of_train_is_what_the_file_says(classifier, capsys):
    """`show` of train draws the numbers that are in the file, each under its name."""
    training = read_metadata(classifier)["table"]["training"]
    train.show({**training, "model": "m.safetensors"})
    drawn = " ".join(capsys.readouterr().out.split())
    metrics, rows = training["metrics"], training["rows"]
    for part in (
        *(f"{train.NAMES[name]} {value:.4g}" for name, value in metrics.items() if name != "of"),
        f"{metrics['of']} rows",
        f"rows {rows['training']:,} to train on, {rows['validation']:,} to validate on",
        f"columns {training['columns']} -> {training['features']} features of {training['dtype']}",
        f"epochs {training['epochs']}",
        f"seed {training['seed']}",
        "model m.safetensors",
    ):
        assert part in drawn, part
