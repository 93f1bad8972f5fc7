"""`fastmlp train` with --time-limit and with --model: every command on ensembles, and on networks for tables."""

import json

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_diabetes, load_iris

from fastmlp import MLPClassifier, MLPRegressor, load
from fastmlp.cli import searching
from fastmlp.cli.export import unscaled
from fastmlp.export.onnx import to_onnx
from fastmlp.tabular.reading import open_source
from fastmlp.tabular.recipe import load as load_recipe

from shell import invoke, refused

FAST = ("--random-state", "0", "--max-iter", "8", "--learning-rate-init", "0.05")


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """A folder with a table of flowers, one column of which is text, and a table of values."""
    folder = tmp_path_factory.mktemp("tables")
    iris = load_iris(as_frame=True)
    flowers = iris.frame.assign(target=iris.target_names[iris.target])
    flowers = flowers.drop(columns=["petal length (cm)", "petal width (cm)"])  # they tell too much
    flowers["wide"] = np.where(flowers["sepal width (cm)"] > 3, "yes", "no")
    flowers.sample(frac=1, random_state=0).to_csv(folder / "flowers.csv", index=False)
    load_diabetes(as_frame=True).frame.to_csv(folder / "values.csv", index=False)
    return folder


@pytest.fixture(scope="module", params=["flowers", "values"])
def found(request, tables):
    """A data file, the model file of a search of a few trials, and what was reported."""
    path = tables / f"{request.param}.safetensors"
    before, searching.TRIALS = searching.TRIALS, 6
    try:
        monitor = ("--monitor", "neg_log_loss") if request.param == "flowers" else ()
        options = (*FAST, *monitor, "--time-limit", "60", "--dtype", "float64", "--json", tables / "report.json")
        data = tables / f"{request.param}.csv"
        result = invoke("train", data, "--target", "target", "-o", path, *options)
    finally:
        searching.TRIALS = before
    return data, path, json.loads((tables / "report.json").read_text()), result


def test_the_report_is_true(found):
    data, path, report, result = found
    search, estimator = report["search"], load(path)
    networks = getattr(estimator, "estimators_", [estimator])
    assert search["score_of_defaults"] <= search["score_of_best"] <= search["score_of_ensemble"]
    assert search["trials"] == {"finished": 6}
    assert len(networks) == search["networks"] >= search["different_networks"]
    assert len({network.coefs_[0].tobytes() for network in networks}) == search["different_networks"]
    assert report["epochs"] == max(network.n_iter_ for network in networks) <= 8
    assert report["ended"] == "the last of 6 trials"
    name = "log_loss" if data.stem == "flowers" else "r2"
    sign = -1 if name == "log_loss" else 1
    assert report["metrics"][name] == pytest.approx(sign * search["score_of_ensemble"], rel=1e-6)
    assert "score" in result.output and "trials: 6 finished" in result.output
    assert "Trial 0: finished" in result.stderr
    for network in networks:  # what was given stays
        assert network.max_iter == 8 and network.learning_rate_init == 0.05


def test_predict_and_evaluate(found, tmp_path):
    data, path, _, _ = found
    estimator, recipe = load_recipe(path)
    X = np.concatenate([*recipe.blocks(open_source(data), np.float64)])
    invoke("predict", path, data, "-o", tmp_path / "out.csv")
    lines = (tmp_path / "out.csv").read_text().split()[1:]
    if data.stem == "values":
        np.testing.assert_allclose(np.array(lines, dtype=float), estimator.predict(X), rtol=1e-6)
    else:
        assert [line.strip('"') for line in lines] == estimator.predict(X).tolist()
    invoke("evaluate", path, data, "--json", tmp_path / "report.json")
    assert json.loads((tmp_path / "report.json").read_text())["rows"]


def test_show(found):
    _, path, report, _ = found
    n = report["search"]["networks"]
    text = invoke("show", path).output
    assert (f"the mean over {n} networks" in text) == (n > 1)
    document = json.loads(invoke("show", path, "--json", "-").output)
    assert len(document.get("networks", [document.get("network")])) == n


def test_export(found, tmp_path):
    """ONNX holds all networks, C one."""
    onnxruntime = pytest.importorskip("onnxruntime")
    data, path, report, _ = found
    invoke("export", path, "--onnx", tmp_path / "net.onnx", "-q")
    estimator, recipe = load_recipe(path)
    X = np.concatenate([*recipe.blocks(open_source(data), np.float64)])
    numeric = [column for column in recipe.columns if column.kind == "numeric"]
    raw = X.copy()
    for place, column in enumerate(numeric):
        raw[:, place] = X[:, place] * column.scale + column.mean
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx")
    outputs = session.run(None, {"X": raw})
    wanted = estimator.predict_proba(X) if data.stem == "flowers" else estimator.predict(X).reshape(outputs[-1].shape)
    np.testing.assert_allclose(outputs[-1], wanted, rtol=1e-6, atol=1e-9)
    if report["search"]["networks"] > 1:
        assert "to_c writes one network" in refused("export", path, "--c", tmp_path / "net.c")
    else:
        invoke("export", path, "--c", tmp_path / "net.c", "-q")


def test_at_least_one_model_is_an_ensemble(tables):
    """So that the tests above see one."""
    assert len(load(tables / "flowers.safetensors").estimators_) > 1


@pytest.mark.parametrize("option", ["--n-ens", "--n-cv"])
def test_ensembles_of_one_fit(tables, tmp_path, option):
    """Also these are model files of any command."""
    path = tmp_path / "many.safetensors"
    options = (*FAST, option, "3", *(("--valid", "0") if option == "--n-cv" else ()))
    report = tmp_path / "report.json"
    invoke("train", tables / "flowers.csv", "--target", "target", "-o", path, *options, "--json", report)
    written = json.loads(report.read_text())
    assert written["networks"] == 3 and written["epochs"] == 8
    invoke("predict", path, tables / "flowers.csv", "-o", tmp_path / "out.csv")
    invoke("evaluate", path, tables / "flowers.csv")
    assert "the mean over 3 networks" in invoke("show", path).output
    invoke("export", path, "--onnx", tmp_path / "net.onnx", "-q")


def test_networks_that_are_one_object_are_scaled_once(tables):
    """The ensemble of a search that was not saved holds a network as often as it was chosen."""
    estimator, recipe = load_recipe(tables / "flowers.safetensors")
    estimator.estimators_ = [estimator.estimators_[0]] * 3
    folded = unscaled(estimator, recipe.columns)
    alone = unscaled(estimator.estimators_[0], recipe.columns)
    np.testing.assert_array_equal(folded.estimators_[2].coefs_[0], alone.coefs_[0])
    to_onnx(folded)


def test_the_limit_is_kept_and_named(tables, tmp_path):
    endless = ("--max-iter", "1000000000", "--n-iter-no-change", "inf", "--random-state", "0", "--hidden", "4")
    report = tmp_path / "report.json"
    path = tmp_path / "m.safetensors"
    options = (*endless, "--time-limit", "0.5", "--json", report, "-q")
    invoke("train", tables / "values.csv", "--target", "target", "-o", path, *options)
    written = json.loads(report.read_text())
    assert written["ended"] == "the limit of 0.5 s (--time-limit)"
    assert set(written["search"]["trials"]) <= {"finished", "out of time"}
    assert isinstance(load(path), MLPRegressor)


REFUSED = {
    "0": ("--time-limit must be a number of seconds above 0, got 0", ("--time-limit", "0")),
    "inf": ("--time-limit must be a number of seconds above 0, got inf", ("--time-limit", "inf")),
    "nan": ("--time-limit must be a number of seconds above 0, got nan", ("--time-limit", "nan")),
    "no validation": ("--time-limit needs rows to validate on", ("--time-limit", "9", "--valid", "0")),
    "folds": ("--time-limit makes no sense with --cv", ("--time-limit", "9", "--cv", "3")),
    "lbfgs": ("--time-limit makes no sense with --solver lbfgs", ("--time-limit", "9", "--solver", "lbfgs")),
    "hinge": ("--time-limit averages probabilities", ("--time-limit", "9", "--loss", "hinge")),
    "n_ens": ("--n-ens makes no sense with --time-limit", ("--time-limit", "9", "--n-ens", "3")),
    "plot": ("--plot makes no sense with --time-limit", ("--time-limit", "9", "--plot", "curve.png")),
}


@pytest.mark.parametrize(("message", "options"), REFUSED.values(), ids=REFUSED)
def test_refused_before_the_file_is_read(tmp_path, monkeypatch, message, options):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.csv").write_text("not even a table")
    assert message in refused("train", "t.csv", "--target", "y", "-o", "m.safetensors", *options)
    assert not (tmp_path / "m.safetensors").exists()


def test_ctrl_c_keeps_what_was_found(tables, tmp_path, monkeypatch):
    import _thread

    pressed = []

    def press(trial):
        pressed.append(trial.number)
        if len(pressed) == 2:
            _thread.interrupt_main()

    from fastmlp.search.estimators import EnsembleSearchClassifier as Search

    ended = Search._ended
    monkeypatch.setattr(Search, "_ended", lambda self, trial, kept: (ended(self, trial, kept), press(trial)))
    monkeypatch.setattr(searching, "TRIALS", 500)
    report, path = tmp_path / "report.json", tmp_path / "m.safetensors"
    options = ("--random-state", "0", "--time-limit", "60", "--json", report)
    invoke("train", tables / "flowers.csv", "--target", "target", "-o", path, *options)
    written = json.loads(report.read_text())
    assert written["ended"] == "Ctrl-C"
    assert 1 <= written["search"]["trials"]["finished"] < 500
    assert isinstance(load(path), MLPClassifier)


# --- networks for tables ----------------------------------------------------------------------------------------------

SMALL = {"realmlp": ("--hidden", "8,8", "--max-iter", "4"), "tabm": ("--hidden", "8", "--k", "4", "--max-iter", "3")}


@pytest.fixture(scope="module")
def gaps(tables):
    """A table with texts and gaps, in two files; the second has a text that the first does not have."""
    draw = np.random.default_rng(0)
    frame = pd.DataFrame({"size": draw.normal(size=300), "shape": draw.choice(["round", "flat", "deep"], size=300)})
    frame["new"] = draw.random(300) < 0.5
    frame["label"] = np.where((frame["size"] > 0) == (frame["shape"] == "flat"), "yes", "no")
    frame["value"] = frame["size"] * 100 + (frame["shape"] == "deep") * 50 + 1000
    frame.loc[::7, "size"] = np.nan
    frame.loc[::11, "shape"] = None
    frame.loc[250, "shape"] = "square"
    frame[:200].to_csv(tables / "gaps.csv", index=False)
    frame[200:].to_csv(tables / "gaps_valid.csv", index=False)
    return frame


@pytest.mark.parametrize("target", ["label", "value"])
@pytest.mark.parametrize("model", SMALL)
def test_networks_for_tables(tables, gaps, tmp_path, model, target):
    """What the command trains is the estimator's fit of the frame; all commands take the file."""
    path, report = tmp_path / "m.safetensors", tmp_path / "report.json"
    other = "value" if target == "label" else "label"
    data, valid = tables / "gaps.csv", tables / "gaps_valid.csv"
    options = ("--model", model, *SMALL[model], "--drop", other, "--valid", valid, "--random-state", "3")
    invoke("train", data, "--target", target, "-o", path, *options, "--json", report, "-q")
    written = json.loads(report.read_text())
    invoke("evaluate", path, valid, "--json", tmp_path / "scores.json")
    scores = json.loads((tmp_path / "scores.json").read_text())["metrics"]
    for name, value in written["metrics"].items():
        if name != "of":
            assert scores[name] == pytest.approx(value, rel=1e-5)

    saved = load(path)
    frame = gaps[["size", "shape", "new"]].assign(
        # as files have them: categories by number, truths as numbers
        shape=gaps["shape"].map({"deep": 0.0, "flat": 1.0, "round": 2.0, "square": 3.0}),
        new=gaps["new"].astype(float),
    )
    rows, y = frame.to_numpy(), gaps[target].to_numpy()
    alone = type(saved)(**saved.get_params(deep=False)).fit(rows[:200], y[:200], X_val=rows[200:], y_val=y[200:])
    np.testing.assert_allclose(_outputs(saved, rows), _outputs(alone, rows), rtol=1e-5, atol=1e-6)
    invoke("predict", path, valid, "-o", tmp_path / "out.csv")
    lines = [line.strip('"') for line in (tmp_path / "out.csv").read_text().split()[1:]]
    if target == "label":
        assert lines == saved.predict(rows[200:]).tolist()
    else:
        np.testing.assert_allclose(np.array(lines, dtype=float), saved.predict(rows[200:]), rtol=1e-4)
    assert type(saved).__name__ in invoke("show", path).output
    assert "to_c takes MLPClassifier and MLPRegressor" in refused("export", path, "--c", tmp_path / "net.c")


def _outputs(estimator, X):
    return estimator.predict_proba(X) if hasattr(estimator, "predict_proba") else estimator.predict(X)


@pytest.mark.parametrize("model", SMALL)
def test_a_search_over_networks_for_tables(tables, gaps, tmp_path, monkeypatch, model):
    monkeypatch.setattr(searching, "TRIALS", 3)
    path, report = tmp_path / "m.safetensors", tmp_path / "report.json"
    options = ("--model", model, *SMALL[model], "--time-limit", "60", "--random-state", "3", "--drop", "value")
    options += ("--monitor", "roc_auc", "--n-iter-no-change", "9")
    invoke("train", tables / "gaps.csv", "--target", "label", "-o", path, *options, "--json", report)
    search = json.loads(report.read_text())["search"]
    assert search["trials"] == {"finished": 3}
    saved = load(path)
    networks = getattr(saved, "estimators_", [saved])
    assert len(networks) == search["networks"]
    epochs = int(SMALL[model][-1])
    assert all(network.monitor == "roc_auc" and network.max_iter == epochs for network in networks)
    invoke("evaluate", path, tables / "gaps.csv")
    assert type(networks[0]).__name__ in invoke("show", path).output


def test_cross_validation_of_networks_for_tables(tables, gaps, tmp_path):
    options = ("--model", "realmlp", *SMALL["realmlp"], "--cv", "2", "--valid", "0", "--drop", "value")
    report = tmp_path / "report.json"
    invoke(
        "train", tables / "gaps.csv", "--target", "label", "-o", tmp_path / "m.safetensors", *options, "--json", report
    )
    written = json.loads(report.read_text())
    assert set(written["cross_validation"]["mean"]) == {"accuracy", "log_loss"}
    assert written["weights_of_epoch"] == written["epochs"] == 4  # no rows are held out
    assert written["rows"] == {"training": 200, "validation": 0}


WRONG_MODEL = {
    "name": ("--model must be one of mlp, realmlp, tabm, got 'forest'", ("--model", "forest")),
    "parameter": ("RealMLPClassifier has no parameter 'alpha'", ("--model", "realmlp", "--alpha", "1")),
    "other parameter": ("MLPClassifier has no parameter 'k'", ("--k", "3")),
    "value": ("The 'dropout' parameter of RealMLPClassifier", ("--model", "realmlp", "--dropout", "much")),
    "folds": ("--n-cv validates each network on the rows of its fold: say --valid 0", ("--n-cv", "3")),
    "target": ("--no-scale-target makes no sense", ("--model", "realmlp", "--no-scale-target")),
}


@pytest.mark.parametrize(("message", "options"), WRONG_MODEL.values(), ids=WRONG_MODEL)
def test_models_and_parameters_are_judged_before_the_file_is_read(tmp_path, monkeypatch, message, options):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.csv").write_text("not even a table")
    assert message in refused("train", "t.csv", "--target", "y", "-o", "m.safetensors", *options)
