"""Estimators for tables in files: bit for bit the same after loading, small, and refused if they were forged."""

import copy
import pickle
import subprocess
import sys
import textwrap

import numpy as np
import pandas as pd
import pytest
from sklearn.exceptions import NotFittedError

import fastmlp
from fastmlp.persistence import ModelFileError, load, read_metadata
from fastmlp.saving import modelfile

from saved_models import reseal, same
from tabular_fits import KINDS, small, table, targets_of
from tiers import each_value_once

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

FRAME, VALUES = table()
LABELS = np.c_[VALUES > 0, VALUES > 1, VALUES < 2].astype(int)

#: What there is to keep -> (class, parameters, table, targets).
CASES = {
    **{name: (name, {}, FRAME, targets_of(name, VALUES)) for name in KINDS},
    "two labels": ("TabMClassifier", {}, FRAME, LABELS),
    "two outputs": ("RealMLPRegressor", {"clamp_output": True}, FRAME, np.c_[VALUES, -VALUES]),
    "float64": ("TabMRegressor", {"dtype": "float64", "clamp_output": True}, FRAME, VALUES),
    "quantile": ("RealMLPRegressor", {"loss": ("quantile", {"quantile": 0.9}), "preset": "td-s"}, FRAME, VALUES),
    "counts": ("TabMRegressor", {"loss": "poisson", "arch_type": "tabm-mini"}, FRAME, np.abs(VALUES) + 0.1),
    "two classes": ("RealMLPClassifier", {"preset": "td-s"}, FRAME, VALUES > 0),
    "activation with parameters": ("TabMClassifier", {"activation": ["prelu"] * 2}, FRAME, VALUES > 0),
    "codes in an array": ("RealMLPClassifier", {"categorical_features": [1]}, None, VALUES > 0),
    "objects": ("RealMLPClassifier", {}, FRAME.astype(object).to_numpy(), VALUES > 0),
    "networks": ("RealMLPClassifier", {"n_ens": 2}, FRAME, targets_of("RealMLPClassifier", VALUES)),
    "folds": ("TabMRegressor", {"n_cv": 2}, FRAME, VALUES),
    "folds of networks": ("RealMLPRegressor", {"n_cv": 2, "n_ens": 2}, FRAME, VALUES),
}


def array(n=120):
    """Return numbers, and codes with gaps, as one array."""
    rng = np.random.default_rng(3)
    return np.c_[rng.normal(size=n), np.where(rng.random(n) < 0.1, np.nan, rng.integers(0, 12, n))]


def fitted(case, **more):
    name, parameters, X, y = CASES[case]
    X = array() if X is None else X
    return small(name, **parameters | more).fit(X, y), X


def outputs(estimator, X):
    return getattr(estimator, "predict_proba", estimator.predict)(X)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


@pytest.fixture(scope="module")
def model():
    """A classifier with periodic numbers, gaps, one-hot texts and an embedding."""
    return fitted("RealMLPClassifier")[0]


@pytest.mark.parametrize("case", CASES)
def test_a_loaded_estimator_is_the_same_bit_for_bit(path, case):
    estimator, X = fitted(case)
    estimator.save(path, metadata={"case": case})
    loaded = load(path)
    assert type(loaded) is type(estimator) and same(loaded.get_params(), estimator.get_params())
    unseen = X.copy()
    if isinstance(X, pd.DataFrame):
        unseen["colour"] = ["violet", None, "red", "blue"] * 30
    for rows in (X, unseen, X[:1]):
        assert same(outputs(loaded, rows), outputs(estimator, rows))
        assert same(loaded.predict(rows), estimator.predict(rows))
    assert vars(loaded).keys() == vars(estimator).keys()
    for mine, theirs in zip(*(getattr(e, "estimators_", [e]) for e in (loaded, estimator)), strict=True):
        assert mine.network_ == theirs.network_ and mine.coder_.to_state() == theirs.coder_.to_state()
    for name, value in vars(estimator).items():
        if name not in ("coder_", "network_", "estimators_", "_training", "_label_binarizer", "_idle_predictions"):
            assert same(value, vars(loaded)[name]), name
    assert read_metadata(path) == {"case": case}
    again = path.with_name("again")
    loaded.save(again, metadata={"case": case})
    assert again.read_bytes() == path.read_bytes()


@pytest.mark.parametrize("case", CASES)
def test_a_pickled_estimator_is_the_same_bit_for_bit(case):
    estimator, X = fitted(case)
    for copied in (pickle.loads(pickle.dumps(estimator)), copy.deepcopy(estimator)):
        assert same(outputs(copied, X), outputs(estimator, X))


def test_members_of_one_split_share_their_coder(path):
    fitted("folds of networks")[0].save(path)
    coders = [member.coder_ for member in load(path).estimators_]
    assert coders[0] is coders[1] and coders[2] is coders[3] and coders[0] is not coders[2]
    assert len(modelfile.read(path).header["coders"]) == 2


@pytest.mark.parametrize("name", KINDS)
def test_no_training_rows_are_in_a_file(path, name):
    # 20 times the rows: the statistics of columns are bounded, nothing else may grow
    sizes = []
    for n in (1000, 20000):
        frame, values = table(n)
        estimator = small(name, max_iter=1).fit(frame, targets_of(name, values))
        estimator.save(path)
        sizes.append(path.stat().st_size)
        assert len(pickle.dumps(estimator)) < path.stat().st_size + 40_000
    assert sizes[1] < sizes[0] + 40_000


def test_many_categories_and_quantiles_do_not_fill_the_header(path):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"id": [f"customer {i:07}" for i in range(3000)], "x": rng.normal(size=3000)})
    estimator = small("TabMRegressor", max_iter=1, d_embedding=1).fit(frame, frame["x"])
    estimator.save(path)
    assert int.from_bytes(path.read_bytes()[:8], "little") < 20_000
    assert same(load(path).predict(frame), estimator.predict(frame))


def test_formulas_of_a_file_are_compiled_if_they_are_trusted(path):
    @fastmlp.activation
    def swell(z):
        return z * z / (1 + abs(z))

    estimator = small("RealMLPRegressor", activation=swell).fit(FRAME, VALUES)
    estimator.save(path)
    with pytest.raises(ModelFileError, match="trust_formulas"):
        load(path)
    assert same(load(path, trust_formulas=True).predict(FRAME), estimator.predict(FRAME))

    def hidden(header, tensors):  # named by the network alone
        header["parameters"]["activation"] = "relu"

    reseal(path, hidden)
    with pytest.raises(ModelFileError, match="trust_formulas"):
        load(path)


def test_a_file_loads_without_pandas(path, model):
    model.save(path)
    expected = path.with_name("expected.npy")
    rows = FRAME[:20].astype(object).to_numpy()
    frame = pd.DataFrame(rows, columns=FRAME.columns)
    np.save(expected, model.predict_proba(frame))
    program = f"""
        import sys
        sys.modules["pandas"] = None
        import warnings
        import numpy as np
        from fastmlp.persistence import load
        model = load({str(path)!r})
        rows = np.array({[[None if x != x else x for x in row] for row in rows.tolist()]!r}, dtype=object)
        warnings.simplefilter("ignore")  # the array has no names
        assert (model.predict_proba(rows) == np.load({str(expected)!r})).all()
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=True)


# --- what is refused --------------------------------------------------------------------------------------------------


def test_the_optimizer_and_what_is_not_fitted_are_refused(path, model):
    with pytest.raises(ValueError, match="optimizer_state=True is for partial_fit"):
        model.save(path, optimizer_state=True)
    with pytest.raises(NotFittedError):
        small("TabMRegressor").save(path)
    assert not path.exists()


@each_value_once
@pytest.mark.parametrize("convert", ["to_sklearn", "to_torch"])
@pytest.mark.parametrize("name", ["RealMLPClassifier", "TabMRegressor"])
def test_conversions_of_the_network_alone_are_refused(convert, name):
    with pytest.raises(TypeError, match=f"{convert} .* {name}: it codes the columns of tables .* to_onnx"):
        getattr(fastmlp, convert)(small(name))


def _column(i, name, to):
    """Return a change of an entry of a column; a function `to` changes what it is."""

    def change(header, tensors):
        columns = dict(header["coders"][0]["dict"])["columns"]
        for entry in columns[i]["dict"]:
            if entry[0] == name:
                place = entry[1]["array"] if isinstance(entry[1], dict) and "array" in entry[1] else None
                if place is None:
                    entry[1] = to
                else:
                    tensors[place] = to(tensors[place]) if callable(to) else to

    return change


def _tensor(name, to):
    def change(header, tensors):
        assert name in tensors, sorted(tensors)
        tensors[name] = to(tensors[name])

    return change


def _entry(*keys, to):
    def change(header, tensors):
        place = header
        for key in keys[:-1]:
            place = dict(place["dict"])[key] if isinstance(place, dict) and "dict" in place else place[key]
        if isinstance(place, dict) and "dict" in place:
            place["dict"] = [[name, to if name == keys[-1] else value] for name, value in place["dict"]]
        elif to is ...:
            del place[keys[-1]]
        else:
            place[keys[-1]] = to

    return change


def _option(name, to):
    def change(header, tensors):
        options = dict(header["coders"][0]["dict"])["options"]
        options["dict"] = [[key, to if key == name else value] for key, value in options["dict"]]

    return change


def _nan(tensor):
    return np.full_like(tensor, np.nan)


FORGED = {
    "no coder": _entry("coders", to=...),
    "no coders": _entry("coders", to=[]),
    "coders of another kind": _entry("coders", to={"dict": []}),
    "another coder": _entry("coder", to=1),
    "a coder below zero": _entry("coder", to=-1),
    "a coder that is true": _entry("coder", to=True),
    "no network": _entry("attributes", "network_", to=...),
    "a network of nothing": _entry("attributes", "network_", to=None),
    "a network without entries": _entry("attributes", "network_", to={"dict": []}),
    "wide": _entry("attributes", "network_", "widths", to={"tuple": [27, 12, 8, 4]}),
    "wide as the sky": _entry("attributes", "network_", "widths", to={"tuple": [27, 2**40, 8, 3]}),
    "deep": _entry("attributes", "network_", "widths", to={"tuple": [27, 12, 8, 8, 3]}),
    "no widths": _entry("attributes", "network_", "widths", to={"tuple": []}),
    "members": _entry("attributes", "network_", "members", to=2),
    "no members": _entry("attributes", "network_", "members", to=0),
    "flag": _entry("attributes", "network_", "input_scale", to=1),
    "no scale": _entry("attributes", "network_", "input_scale", to=False),
    "loss": _entry("attributes", "network_", "loss", to="squared_error"),
    "unknown loss": _entry("attributes", "network_", "loss", to="nothing"),
    "activations": _entry("attributes", "network_", "activations", to={"tuple": ["selu", "sel"]}),
    "link": _entry("attributes", "out_activation_", to="logistic"),
    "dtype": _entry("parameters", "dtype", to="float64"),
    "features": _entry("attributes", "n_features_in_", to=4),
    "outputs": _entry("attributes", "n_outputs_", to=4),
    "classes": _entry("attributes", "classes_", to={"strings": "nothing"}),
    "no embedding": _entry("attributes", "embedding_", to=...),
    "another block": _entry("attributes", "piecewise_weight_", to=[None, None, None]),
    "version of the coder": _entry("coders", 0, "version", to=7),
    "scaling": _option("scaling", "quantile_normal"),
    "no scaling": _option("scaling", None),
    "unknown scaling": _option("scaling", "wild"),
    "embedding of numbers": _option("numeric_embedding", "piecewise"),
    "size of the embedding": _option("embedding_size", 9),
    "huge embedding": _option("embedding_size", 2**50),
    "frequencies": _option("frequencies", 0),
    "fill": _column(0, "fill", "x"),
    "infinite fill": _column(0, "fill", {"float": "inf"}),
    "negative scale": _column(0, "scale", [0.0, -1.0]),
    "kind of column": _column(0, "kind", "categorical"),
    "indicator gone": _column(1, "indicator", None),
    "coding": _column(3, "coding", "embedding"),
    "unknown coding": _column(3, "coding", "codes"),
    "scales of categories": _column(3, "scales", lambda tensor: tensor[:-1]),
    "scales of another shape": _column(3, "scales", lambda tensor: tensor.ravel()),
    "scales in float32": _column(3, "scales", lambda tensor: tensor.astype(np.float32)),
    "scales that are none": _column(3, "scales", _nan),
    "most frequent": _column(3, "most_frequent", 3),
    "categories": _entry("coders", 0, "columns", to=[]),
    "a text less": _tensor("coders.0.columns.4.categories.lengths", lambda tensor: tensor[:-1]),
    "texts out of order": _tensor("coders.0.columns.4.categories", lambda tensor: tensor[::-1].copy()),
    "weights": _tensor("embedding_.2", _nan),
    "weights of another shape": _tensor("embedding_.2", lambda tensor: tensor[:-1]),
    "weights of another dtype": _tensor("periodic_phase_.0", lambda tensor: tensor.astype(np.float64)),
    "scale of another length": _tensor("input_scale_.0", lambda tensor: tensor[1:]),
    "names of features": _tensor("feature_names_in_", lambda tensor: tensor[::-1].copy()),
    "a stranger": lambda header, tensors: tensors.update(stranger=np.zeros(1)),
    "a stranger among coders": lambda header, tensors: tensors.update({"coders.9": np.zeros(1)}),
}


@pytest.mark.parametrize("what", FORGED)
def test_forged_files_are_refused(path, model, what):
    model.save(path)
    before = modelfile.read(path)
    reseal(path, FORGED[what])
    after = modelfile.read(path)
    assert before.header != after.header or before.tensors.keys() != after.tensors.keys(), "nothing was forged"
    with pytest.raises(ModelFileError):
        load(path)


def test_a_file_of_another_estimator_is_refused(path, model):
    model.save(path)
    for name in ("MLPClassifier", "TabMClassifier", "RealMLPRegressor"):
        reseal(path, _entry("estimator", to=name))
        with pytest.raises(ModelFileError):
            load(path)
    fastmlp.MLPClassifier((3,), max_iter=1).fit(array()[:, :1], VALUES > 0).save(path)
    for change in (_entry("estimator", to="RealMLPClassifier"), _entry("coders", to=[None])):
        reseal(path, change)
        with pytest.raises(ModelFileError):
            load(path)


@pytest.mark.parametrize("forged", [np.zeros((2, 2)), np.array([[1.0], [0.0]]), np.array([[0.0], [np.nan]])])
def test_a_forged_range_of_targets_is_refused(path, forged):
    fitted("RealMLPRegressor")[0].save(path)
    reseal(path, _tensor("target_range_", lambda tensor: forged))
    with pytest.raises(ModelFileError, match="target_range_"):
        load(path)


def test_forged_members_are_refused(path):
    fitted("folds of networks")[0].save(path)
    for change in (
        _entry("estimators_", 0, "coder", to=5),
        lambda header, tensors: [member.update(coder=0) for member in header["estimators_"]],  # a coder too many
        _entry("coders", to=[]),
        _entry("estimators_", 1, "attributes", "n_features_in_", to=3),
    ):
        forged = path.with_name("forged")
        forged.write_bytes(path.read_bytes())
        reseal(forged, change)
        with pytest.raises(ModelFileError):
            load(forged)
