"""Saved models: exact round trips, training that goes on bit for bit, and files that are damaged or hostile.

``FASTMLP_MUTATIONS=10000 pytest tests/test_persistence.py -k mutated -s`` runs a longer campaign and prints its counts.
"""

import copy
import hashlib
import json
import os
import pickle
import random
import struct
import subprocess
import sys
import tracemalloc
import warnings
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save_file
from sklearn.datasets import make_classification, make_multilabel_classification, make_regression
from sklearn.exceptions import NotFittedError

import fastmlp
from fastmlp import MLPClassifier, MLPRegressor, backends, modelfile
from fastmlp.optimizers import STOCHASTIC_SOLVERS
from fastmlp.persistence import ModelFileError, load, read_metadata, save
from fastmlp.schedules import SCHEDULES

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X, Y = make_classification(80, 6, n_informative=4, n_classes=3, random_state=0)
LABELS = make_multilabel_classification(80, 6, n_classes=4, random_state=0)[1]
VALUES = make_regression(80, 6, n_targets=2, random_state=0)[1] / 100
GIVEN = {"hidden_layer_sizes": (5,), "max_iter": 6, "random_state": 0, "batch_size": 25, "learning_rate_init": 0.01}


def factor():
    """A number that formulas capture."""
    c = 1.25

    @fastmlp.activation
    def scaled(z):

        # the blank line above and this comment are part of the text
        return c * tanh(z)  # noqa: F821

    return scaled


@fastmlp.loss(link="exp")
def deviance(y, p):
    return p - y * log(p)  # noqa: F821


def square_slope(z, a):
    return 2 * z


#: name -> (class, parameters, y)
CASES = {
    "defaults": (MLPClassifier, {}, Y),
    "binary text": (MLPClassifier, {}, np.array(["nein", "já"])[Y % 2]),
    "labels": (MLPClassifier, {"activation": "tanh"}, LABELS),
    "one class": (MLPClassifier, {}, np.zeros(80, dtype=np.int8)),
    "dates": (MLPClassifier, {}, np.array(["2020-01-01", "2021-05-01", "1969-01-01"], dtype="datetime64[D]")[Y]),
    "early stopping": (MLPClassifier, {"early_stopping": True, "n_iter_no_change": np.inf}, Y),
    "lbfgs": (MLPRegressor, {"solver": "lbfgs"}, VALUES),
    "no hidden layer": (MLPRegressor, {"hidden_layer_sizes": []}, VALUES[:, 0]),
    "everything": (
        MLPClassifier,
        {
            "hidden_layer_sizes": np.array([4, 3]),
            "activation": ["prelu", ("elu", {"alpha": np.float64(0.5)})],
            "batch_norm": True,
            "dropout": np.array([0.1, 0.2]),
            "input_dropout": 0.1,
            "solver": "nadam",
            "learning_rate": ("one_cycle", {"pct_start": 0.4}),
            "class_weight": {0: 1.0, np.int64(1): 2, 2: 0.5},
            "random_state": np.random.RandomState(3),
            "weight_decay": 0.01,
            "max_grad_norm": 1,
            "monitor": "accuracy",
            "early_stopping": True,
            "batch_size": 24,
        },
        Y,
    ),
    "focal": (MLPClassifier, {"class_weight": [{0: 1, 1: 2}] * 4, "loss": ("focal", {"gamma": 1})}, LABELS),
    "hinge": (MLPClassifier, {"loss": "hinge", "learning_rate": "plateau"}, Y),
    "formula": (MLPClassifier, {"activation": [factor(), "relu"], "hidden_layer_sizes": (4, 3)}, Y),
    "formula with slope": (
        MLPRegressor,
        {"activation": fastmlp.activation("def square(z): return z * z", slope=square_slope), "loss": deviance},
        np.abs(VALUES),
    ),
}


def fitted(name, dtype=np.float64, **more):
    cls, parameters, y = CASES[name]
    return cls(**(GIVEN | copy.deepcopy(parameters) | more)).fit(X.astype(dtype), y)


def outputs(estimator, rows=X):
    predict = getattr(estimator, "predict_proba", getattr(estimator, "decision_function", None))
    return estimator.predict(rows) if predict is None else predict(rows)


def same(a, b):
    """Equal in type, dtype and value all the way down; NaNs are equal."""
    if isinstance(a, np.ndarray):
        equal_nan = a.dtype.kind == "f"
        return type(b) is type(a) and a.dtype == b.dtype and np.array_equal(a, b, equal_nan=equal_nan)
    if isinstance(a, np.random.RandomState):
        return isinstance(b, np.random.RandomState) and str(a.get_state()) == str(b.get_state())
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return isinstance(b, dict) and len(a) == len(b) and all(k in b and same(a[k], b[k]) for k in a)
    if isinstance(a, float) and a != a:
        return b != b
    return a == b and isinstance(a, np.generic | type(b))


def attributes(estimator):
    return {name: value for name, value in vars(estimator).items() if name.endswith("_") and not name.startswith("__")}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


# --- round trips ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_all_comes_back(path, name, dtype):
    model = fitted(name, dtype)
    model.save(path, optimizer_state=name == "everything")
    again = fastmlp.load(path, trust_formulas=True)
    assert type(again) is type(model)
    assert same(model.get_params(), again.get_params())
    assert attributes(model).keys() == attributes(again).keys()
    assert all(same(value, attributes(again)[name]) for name, value in attributes(model).items())
    rows = X.astype(dtype)
    assert (outputs(again, rows) == outputs(model, rows)).all()
    assert (again.predict(rows) == model.predict(rows)).all()
    assert again.coefs_[0].base is again.intercepts_[-1].base  # views of one vector, which can be edited
    again.coefs_[0][...] = 0
    assert (outputs(again, rows) != outputs(model, rows)).any() or name == "one class"


PROGRAM = """
import pickle, sys
import fastmlp
names, X = pickle.load(sys.stdin.buffer)
found = {}
for name, path in names.items():
    model = fastmlp.load(path, trust_formulas=True)
    predict = getattr(model, "predict_proba", getattr(model, "decision_function", None)) or model.predict
    found[name] = model.predict(X), predict(X), repr(model), model.loss_
sys.stdout.buffer.write(pickle.dumps(found))
"""


def test_all_comes_back_in_a_fresh_process(tmp_path):
    models = {name: fitted(name) for name in CASES}
    paths = {name: str(tmp_path / name) for name in models}
    for name, model in models.items():
        save(model, paths[name])
    done = subprocess.run([sys.executable, "-c", PROGRAM], input=pickle.dumps((paths, X)), stdout=-1, check=True)
    for name, (labels, values, text, loss) in pickle.loads(done.stdout).items():
        assert (labels == models[name].predict(X)).all() and (values == outputs(models[name])).all()
        assert loss == models[name].loss_
        assert text == repr(models[name]) or name == "everything"  # a RandomState's text has its address


@pytest.mark.parametrize(
    "columns", [list("abcdef"), ["", "ü", "日本", "a\x00b", "a" * 1000, "\ud800"]], ids=["ASCII", "odd"]
)
def test_feature_names_come_back(path, columns):
    frame = pd.DataFrame(X, columns=pd.Index(columns, dtype=object))
    model = MLPClassifier(**GIVEN).fit(frame, Y)
    model.save(path)
    again = load(path)
    assert again.feature_names_in_.dtype == object and again.feature_names_in_.tolist() == columns
    assert (again.predict_proba(frame) == model.predict_proba(frame)).all()


@pytest.mark.parametrize(
    "classes",
    [
        np.array([True, False]),
        np.array([-3, 5, 2**40]),
        np.array([1, 2, 255], dtype=np.uint8),
        np.array([1.0, 2.0, -7.0], dtype=np.float32),
        np.array([1, 2, 3], dtype=">i4"),
        np.array(["a", "bb", "日本語 "]),
        np.array(["a", "bb", "c"], dtype=object),
        np.array([1, 2, 3], dtype="timedelta64[ms]"),
        np.array(["2020-01-01T10", "2021", "1900"], dtype="datetime64[ns]"),
    ],
    ids=lambda classes: str(classes.dtype),
)
def test_classes_come_back(path, classes):
    y = classes[Y % len(classes)]
    model = MLPClassifier(**GIVEN).fit(X, y)
    model.save(path, optimizer_state=True)
    again = load(path)
    assert again.classes_.dtype == model.classes_.dtype and again.classes_.tolist() == model.classes_.tolist()
    assert (again.predict(X) == model.predict(X)).all()
    assert (again.partial_fit(X, y).predict_proba(X) == model.partial_fit(X, y).predict_proba(X)).all()


def test_classes_of_a_first_partial_fit_come_back(path):
    for y, classes in ((Y, [0, 1, 2, 7]), (LABELS, [0, 1, 2, 3]), (LABELS, list(range(8)))):
        model = MLPClassifier(**GIVEN).partial_fit(X, y, classes=classes)
        model.save(path, optimizer_state=True)
        again = load(path)
        assert again.classes_.tolist() == classes
        assert (again.partial_fit(X, y).predict_proba(X) == model.partial_fit(X, y).predict_proba(X)).all()


def test_weights_that_a_user_replaced_come_back(path):
    model = fitted("defaults")
    model.coefs_ = [np.asfortranarray(np.arange(12).reshape(6, 2)), [[1, 2, 3], [4, 5, 6]]]
    model.intercepts_ = [np.zeros(2), np.ones(3)]
    model.set_params(hidden_layer_sizes=(9, 9), activation="tanh")
    model.save(path, optimizer_state=True)
    again = load(path)
    assert (again.predict_proba(X) == model.predict_proba(X)).all()
    assert again.hidden_layer_sizes == (9, 9) and again._training.optimizer is None


def test_slopes_of_an_earlier_activation_are_left_out(path):
    model = fitted("defaults", activation="prelu").set_params(activation="relu")
    model.save(path)
    assert not hasattr(load(path), "prelu_slopes_")
    assert (load(path).predict_proba(X) == model.predict_proba(X)).all()


def test_the_same_model_gives_the_same_bytes(path, tmp_path):
    model = fitted("everything")
    model.save(path, optimizer_state=True, metadata={"b": 1, "a": 2})
    load(path).save(tmp_path / "again", optimizer_state=True, metadata={"b": 1, "a": 2})
    assert (tmp_path / "again").read_bytes() == path.read_bytes()


def test_other_readers_find_the_weights(path):
    model = fitted("everything")
    model.save(path)
    with safe_open(path, framework="numpy") as stream:
        for name in ("coefs_", "intercepts_", "bn_means_"):
            for i, array in enumerate(getattr(model, name)):
                assert (stream.get_tensor(f"{name}.{i}") == array).all()


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
TREES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.integers() | st.text(), inner, max_size=3)
    ),
)


@given(TREES)
def test_any_plain_value_comes_back(value):
    tensors = {}
    text = json.dumps(modelfile.encode(value, tensors, "value"), allow_nan=False)
    assert same(value, modelfile.Decoder(tensors, False)(json.loads(text)))


# --- training goes on -------------------------------------------------------------------------------------------------


def assert_bit_equal_training(model, again, y, rows=X, steps=3):
    for _ in range(steps):
        model.partial_fit(rows, y)
        again.partial_fit(rows, y)
    for name in ("coefs_", "intercepts_", "bn_vars_", "prelu_slopes_"):
        assert same(getattr(model, name, None), getattr(again, name, None))
    assert same(model.loss_curve_, again.loss_curve_)
    assert (model.n_iter_, model.t_, model.best_loss_) == (again.n_iter_, again.t_, again.best_loss_)


@pytest.mark.parametrize("solver", STOCHASTIC_SOLVERS)
def test_partial_fit_goes_on_bit_for_bit(path, solver, dtype):
    model = fitted("everything", dtype, solver=solver, early_stopping=False, monitor="score")
    model.save(path, optimizer_state=True)
    assert_bit_equal_training(model, load(path), Y, X.astype(dtype))


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("solver", ["sgd", "adamw"])
def test_schedules_go_on_bit_for_bit(path, schedule, solver):
    model = fitted("lbfgs", solver=solver, learning_rate=schedule, n_iter_no_change=1, tol=1.0, power_t=2)
    for _ in range(3):
        model.partial_fit(X, VALUES)
    model.save(path, optimizer_state=True)
    assert_bit_equal_training(model, load(path), VALUES)


def test_an_optimizer_keeps_the_parameters_it_was_made_with(path):
    model = fitted("defaults", momentum=1, solver="sgd", max_grad_norm=3.0)
    model.set_params(momentum=0.1, solver="adam", learning_rate_init=1.0, max_grad_norm=None)
    model.save(path, optimizer_state=True)
    assert_bit_equal_training(model, load(path), Y)


def test_without_the_optimizer_partial_fit_begins_with_a_new_one(path):
    model = fitted("defaults")
    model.save(path)
    model._training.optimizer = None
    assert_bit_equal_training(model, load(path), Y)


@pytest.mark.parametrize("name", ["defaults", "everything", "early stopping", "lbfgs"])
@pytest.mark.parametrize("optimizer_state", [False, True])
def test_warm_starts_go_on_bit_for_bit(path, name, optimizer_state):
    model = fitted(name, warm_start=True)
    for _ in range(2):
        model.save(path, optimizer_state=optimizer_state)
        again = load(path)
        y = CASES[name][2]
        model.fit(X, y)
        again.fit(X, y)
        assert (outputs(model) == outputs(again)).all()
        for attribute in attributes(model):
            if attribute != "history_":
                assert same(getattr(model, attribute), getattr(again, attribute))


def test_the_best_weights_so_far_come_back(path):
    # the best of the first epochs, not the present ones: as after an exception in a callback
    model = fitted("early stopping", warm_start=True)
    model._training.best_params = model.coefs_[0].base + 1.0
    model.save(path, optimizer_state=True)
    again = load(path)
    model.best_validation_score_ = again.best_validation_score_ = 2.0
    model._training.stopping.best_monitored = again._training.stopping.best_monitored = 2.0
    assert (outputs(model.fit(X, Y)) == outputs(again.fit(X, Y))).all()


# --- formulas ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["formula", "formula with slope"])
def test_formulas_are_shown_and_need_trust(path, name):
    model = fitted(name)
    model.save(path)
    with pytest.raises(ModelFileError, match=r"parameters: .*formulas of a user's own") as caught:
        load(path)
    for formula in [model.activation] if name != "formula" else model.activation[:1]:
        assert all(line in str(caught.value) for line in formula.source.splitlines())
        assert all(f"# {name} = {value!r}" in str(caught.value) for name, value in formula.constants.items())
    if name != "formula":
        assert "def square_slope(z, a):" in str(caught.value) and "def deviance(y, p):" in str(caught.value)
    assert load(path, trust_formulas=True).activation == model.activation


def test_a_file_without_formulas_needs_no_trust(path):
    fitted("defaults").save(path)
    assert same(load(path).get_params(), load(path, trust_formulas=True).get_params())


@pytest.mark.parametrize(
    "source", ["import os", "def f(z): return open(z)", "def f(z): return z.real", "@x\ndef f(z): return z", "(" * 9999]
)
def test_what_is_no_formula_is_refused(path, source):
    fitted("formula").save(path)

    def change(header, tensors):
        header["parameters"]["activation"][0]["formula"]["activation"]["source"] = source

    reseal(path, change)
    with pytest.raises(ModelFileError, match=r"parameters.activation: .*formula"):
        load(path, trust_formulas=True)


# --- what is not saved ------------------------------------------------------------------------------------------------


class Sub(MLPClassifier):
    pass


def _function(*arguments):
    return 1.0


PCG = np.random.RandomState(np.random.PCG64(0))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"learning_rate": _function}, TypeError, "parameters.learning_rate=.*a function"),
        ({"init": _function}, TypeError, r"set_params\(init="),
        ({"monitor": _function}, TypeError, r"parameters.monitor=.*joblib"),
        ({"random_state": PCG}, TypeError, "random_state is a RandomState of PCG64"),
        ({"alpha": -1}, ValueError, "parameters: The 'alpha' parameter"),
        ({"activation": "gel"}, ValueError, "activation='gel' is unknown"),
        ({"activation": ["relu", "relu"]}, ValueError, "activation must be one entry"),
    ],
)
def test_what_cannot_be_kept_is_refused(path, change, error, message):
    path.write_text("as it was")
    with pytest.raises(error, match=message):
        save(fitted("defaults").set_params(**change), path)
    assert path.read_text() == "as it was" and os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        (MLPClassifier(), NotFittedError, "not fitted yet"),
        (Sub(), TypeError, "save keeps MLPClassifier and MLPRegressor, got Sub"),
        (None, TypeError, "got NoneType"),
    ],
)
def test_who_cannot_be_kept_is_refused(path, model, error, message):
    with pytest.raises(error, match=message):
        save(model, path)
    assert not path.exists()


@pytest.mark.parametrize("name", ["coefs_", "intercepts_"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused(path, name, value):
    model = fitted("defaults")
    getattr(model, name)[0].flat[3] = value
    with pytest.raises(ValueError, match="weights must be finite"):
        model.save(path)
    assert not path.exists()


def test_a_learning_rate_that_was_a_function_is_refused_with_the_optimizer(path):
    model = fitted("defaults", learning_rate=lambda progress: 1 - progress).set_params(learning_rate="constant")
    with pytest.raises(TypeError, match="optimizer_state=True: the learning rate of this optimizer is a function"):
        model.save(path, optimizer_state=True)
    model.save(path)
    assert (load(path).predict_proba(X) == model.predict_proba(X)).all()


def test_what_is_left_out_is_said(path):
    model = fitted("defaults", callbacks=[lambda info: False])
    model.note = "mine"
    with pytest.warns(UserWarning, match="the model file does not keep callbacks, note$"):
        model.save(path)
    assert load(path).callbacks is None and not hasattr(load(path), "note")
    model = fitted("defaults", callbacks=[])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.save(path)
    assert load(path).callbacks is None


METADATA = {"name": "ü\ud800", "n": [1, 2.5, None, True, [], {}], "deep": {"a": {"b": [{}]}}, "big": 2**70}


def test_metadata_comes_back(path):
    fitted("defaults").save(path, metadata=METADATA)
    assert read_metadata(path) == METADATA
    fitted("defaults").save(path, metadata={"a": (1, np.float32(0.5)), "b": np.int64(3)})
    assert read_metadata(path) == {"a": [1, 0.5], "b": 3}
    fitted("defaults").save(path)
    assert read_metadata(path) == {}


def _endless():
    endless = []
    endless.append(endless)
    return {"a": endless}


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ([1], "metadata must be a mapping of str to what JSON can hold, got list"),
        ("text", "metadata must be a mapping"),
        ({1: 2}, "metadata has the key 1; JSON allows only text"),
        ({"a": {"b": [1, {2}]}}, r"metadata\['a'\]\['b'\]\[1\] is of type set"),
        ({"a": np.arange(2)}, r"metadata\['a'\] is of type ndarray"),
        ({"a": float("nan")}, r"metadata\['a'\]=nan is no number of JSON"),
        (_endless(), "nested more than 100 levels deep"),
        ({"a": "x" * (5 << 20)}, r"header of .*model.safetensors would have 52\d{5} bytes, the limit is 4194304"),
    ],
)
def test_what_is_no_metadata_is_refused(path, metadata, message):
    with pytest.raises((TypeError, ValueError), match=message):
        fitted("defaults").save(path, metadata=metadata)
    assert not path.exists()


def test_a_failed_save_leaves_the_old_file(path, monkeypatch):
    model = fitted("defaults")
    model.save(path, metadata={"version": 1})

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        model.save(path, metadata={"version": 2})
    assert read_metadata(path) == {"version": 1} and os.listdir(path.parent) == [path.name]
    with pytest.raises(FileNotFoundError):
        model.save(path.parent / "missing" / "model")
    with pytest.raises(OSError, match="no regular file"):
        model.save(path.parent)


def test_without_safetensors_the_extra_is_named(path, monkeypatch):
    model = fitted("defaults")
    model.save(path)
    monkeypatch.setitem(sys.modules, "safetensors", None)
    for function in (lambda: model.save(path), lambda: load(path), lambda: read_metadata(path)):
        with pytest.raises(ImportError, match=r'pip install "fastmlp\[save\]"'):
            function()


# --- versions ---------------------------------------------------------------------------------------------------------


def reseal(path, change):
    """Change a file's header and tensors and give it right checksums again."""
    header, tensors = modelfile.read(path)
    header, tensors = copy.deepcopy(header), {name: tensor.copy() for name, tensor in tensors.items()}
    change(header, tensors)
    modelfile.write(path, header, tensors)


def test_the_checksums_are_what_the_guide_says(path):
    fitted("everything").save(path)
    content = path.read_bytes()
    n = int.from_bytes(content[:8], "little")
    entries = json.loads(content[8 : 8 + n])
    header = json.loads(entries.pop("__metadata__")["fastmlp model"])
    digest = hashlib.sha256()
    for name in sorted(entries):
        entry, names = entries[name], {"F64": "<f8", "I64": "<i8", "U32": "<u4"}
        start, stop = entry["data_offsets"]
        digest.update(json.dumps([name, names[entry["dtype"]], entry["shape"]]).encode())
        digest.update(content[8 + n + start : 8 + n + stop])
    assert header["tensors_sha256"] == digest.hexdigest()
    given = header.pop("sha256")
    assert given == hashlib.sha256(json.dumps(header, sort_keys=True).encode()).hexdigest()


def _later(header, tensors):
    header["format"], header["fastmlp"] = "1.7", "9.9"
    header["brand_new"] = {"a": 1}
    header["parameters"]["brand_new"] = {"strange": 1}
    header["attributes"]["brand_new_"] = {"array": "brand_new_"}
    header["training"] = {"brand_new": [1]}
    tensors["brand_new_"] = np.arange(3.0)


def test_a_newer_minor_version_loads_without_what_is_not_required(path):
    model = fitted("everything")
    model.save(path)
    reseal(path, _later)
    assert (load(path).predict_proba(X) == model.predict_proba(X)).all()


@pytest.mark.parametrize("entry", ["parameters.brand_new", "attributes.brand_new_", "training.brand_new"])
def test_a_newer_minor_version_says_what_is_required(path, entry):
    fitted("defaults").save(path)

    def change(header, tensors):
        _later(header, tensors)
        header["required"].append(entry)

    reseal(path, change)
    section, name = entry.split(".")
    with pytest.raises(ModelFileError, match=f"{section}: '{name}' is unknown to this version; .* fastmlp 9.9"):
        load(path)


@pytest.mark.parametrize("section", ["parameters", "attributes", "training"])
def test_this_version_has_nothing_unknown(path, section):
    fitted("defaults").save(path)
    reseal(path, lambda header, tensors: header.setdefault(section, {}).update(brand_new=1))
    with pytest.raises(ModelFileError, match=f"{section}: 'brand_new' is unknown"):
        load(path)


def test_other_major_versions_are_refused(path):
    fitted("defaults").save(path)
    reseal(path, lambda header, tensors: header.update(format="2.0", fastmlp="9.9"))
    with pytest.raises(ModelFileError, match=r"header: the file has format 2.0, written by fastmlp 9.9; .* a newer"):
        load(path)
    with pytest.raises(ModelFileError, match="this fastmlp reads format 1"):
        read_metadata(path)
    reseal_any(path, {"format": "0.9"})
    with pytest.raises(ModelFileError, match="an older fastmlp"):
        load(path)


def reseal_any(path, header, key="fastmlp model"):
    """A safetensors file with this JSON in its metadata, right or not."""
    save_file({}, path, {key: header if isinstance(header, str) else json.dumps(header)})


def test_a_parameter_that_an_older_version_had_not_has_its_default(path):
    fitted("defaults", l1_ratio=0.5).save(path)
    reseal(path, lambda header, tensors: header["parameters"].pop("l1_ratio"))
    assert load(path).l1_ratio == 0.0


# --- damage, by hand --------------------------------------------------------------------------------------------------


def _set(*keys, to):
    def change(header, tensors):
        place = header
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] = to

    return change


def _drop(*keys):
    def change(header, tensors):
        place = header
        for key in keys[:-1]:
            place = place[key]
        del place[keys[-1]]

    return change


def _tensor(name, function):
    return lambda header, tensors: tensors.update({name: function(tensors[name])})


DAMAGE = [
    (_set("estimator", to="os.system"), "estimator: must be one of .*got 'os.system'"),
    (_set("estimator", to=["MLPClassifier"]), "estimator: must be one of"),
    (_drop("estimator"), "estimator: must be one of .*got None"),
    (_set("parameters", to=[]), "parameters: must be of type dict, got list"),
    (_set("parameters", "alpha", to="x"), "parameters: The 'alpha' parameter of MLPClassifier must be"),
    (_set("parameters", "hidden_layer_sizes", to=None), "parameters: The 'hidden_layer_sizes'"),
    (_set("parameters", "alpha", to={"eval": "1"}), r"parameters.alpha: an entry of unknown kind: \['eval'\]"),
    (_set("parameters", "alpha", to={"array": "nothing"}), "parameters.alpha: there is no tensor 'nothing'"),
    (_set("parameters", "alpha", to={"float": "1e3"}), "parameters.alpha: '1e3' is no number"),
    (_set("parameters", "alpha", to={"int": "1.0"}), "parameters.alpha: '1.0' is no whole number"),
    (_set("parameters", "alpha", to={"dict": [[1, 2], [1, 3]]}), "parameters.alpha: a key comes twice"),
    (_set("parameters", "alpha", to={"dict": [[[], 2]]}), r"parameters.alpha: \[\] is no key"),
    (_set("parameters", "activation", to="exp"), "parameters: The 'activation' parameter"),
    (_set("parameters", "activation", to=["relu"] * 7), "attributes: activation must be one entry"),
    (_drop("attributes", "coefs_"), "attributes: has no entry 'coefs_'"),
    (_set("attributes", "coefs_", to=[]), "attributes: list index out of range"),
    (_set("attributes", "coefs_", 1, to={"array": "coefs_.0"}), "attributes: there is no tensor 'coefs_.0', or it"),
    (_tensor("coefs_.0", lambda W: W[:, :-1]), "attributes: coefs_ must be a chain of matrices"),
    (_tensor("coefs_.0", lambda W: W.astype(np.float16)), "attributes: coefs_ must hold arrays of one dtype"),
    (_tensor("coefs_.0", lambda W: W.astype(np.int64)), "coefs_ must hold arrays of one dtype, float32 or float64"),
    (_tensor("intercepts_.1", lambda b: b.astype(np.float32)), "intercepts_ must hold arrays of one dtype"),
    (_tensor("intercepts_.1", lambda b: b * np.nan), "attributes: weights must be finite"),
    (_tensor("intercepts_.0", lambda b: b[:-1]), r"intercepts_\[0\] must have shape \(4,\)"),
    (_drop("attributes", "bn_means_"), r"bn_means_ must hold arrays for the hidden layers \[True, True\]"),
    (_drop("attributes", "bn_scales_"), "bn_shifts_ must hold arrays for the hidden layers"),
    (_drop("attributes", "prelu_slopes_"), r"prelu_slopes_ must hold arrays for the hidden layers \[True, False\]"),
    (_set("attributes", "prelu_slopes_", to=[None, None]), r"it has them for \[False, False\]"),
    (_tensor("bn_vars_.1", lambda v: -v - 1), "bn_vars_ must not be negative"),
    (_tensor("bn_vars_.1", lambda v: v[:-1]), r"bn_vars_\[1\] must have shape \(3,\)"),
    (_set("attributes", "out_activation_", to="eval"), "out_activation_ must be one of"),
    (_set("attributes", "n_layers_", to=9), "n_layers_: must be 4 for the weights in the file, got 9"),
    (_set("attributes", "n_features_in_", to=True), "n_features_in_: must be a whole number"),
    (_set("attributes", "n_outputs_", to={"int": "3" * 300}), "n_outputs_: must be a whole number"),
    (_set("attributes", "t_", to=-1), "t_: must be a whole number"),
    (_set("attributes", "loss_", to="0"), "loss_: must be a number or None"),
    (_set("attributes", "loss_curve_", to=[1, 2]), "loss_curve_: must be None or a tensor"),
    (_tensor("loss_curve_", lambda curve: curve.astype(np.float32)), "loss_curve_: must be None or a tensor"),
    (_set("attributes", "history_", to={"dict": [["loss", None]]}), "history_: must be a curve for each name"),
    (_set("attributes", "_monitored", to=3), "_monitored: must be text"),
    (_set("attributes", "feature_names_in_", to={"array": "loss_curve_"}), "feature_names_in_: must be texts"),
    (_tensor("classes_", lambda classes: classes[::-1]), "classes_: must be sorted"),
    (_tensor("classes_", lambda classes: classes[:2]), "_label_binarizer: 2 classes are not multiclass"),
    (_tensor("classes_", lambda classes: np.arange(9)), "do not belong to a network with 3 outputs"),
    (_drop("attributes", "classes_"), "_label_binarizer: 'MLPClassifier' object has no attribute 'classes_'"),
    (_set("attributes", "_label_binarizer", "dict", 0, 1, to="os"), "_label_binarizer: y_type='os'"),
    (_drop("attributes", "_label_binarizer"), "_label_binarizer: has no entry"),
    (_set("training", to=3), "training: must be of type dict, got int"),
    (_set("training", "dropout_seed", to=2**40 * -1), "training.dropout_seed: must be a whole number of 64 bits"),
    (_set("training", "optimizer", "dict", 0, 1, to="rmsprop"), "training.optimizer: 'rmsprop' has 1 state"),
    (_set("training", "optimizer", "dict", 5, 1, to={"dict": []}), "training.optimizer: hyper must hold"),
    (_set("training", "optimizer", "dict", 0, 1, to="os"), "training.optimizer: rule must be one of"),
    (_set("training", "optimizer", "dict", 1, 1, to=2**50), "training.optimizer: must be a whole number"),
    (_tensor("training.optimizer.states.0", lambda s: s[1:]), r"training.optimizer: a vector must be \(\d+,\) of"),
    (_set("training", "optimizer", to=None), "training.optimizer: "),
    (lambda header, tensors: tensors.update(more=np.zeros(3)), r"tensors: nothing refers to \['more'\]"),
    (_set("metadata", to=[1]), "metadata: must be of type dict"),
    (_set("required", to={}), "required: must be of type list"),
    (_tensor("parameters.random_state.key", lambda key: key[1:]), "parameters.random_state: the state of MT19937"),
    (_set("parameters", "random_state", "random_state", "dict", 1, 1, to=10**9), "no state of MT19937"),
]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The bytes of a model with something of everything."""
    path = tmp_path_factory.mktemp("whole") / "model"
    fitted("everything").save(path, optimizer_state=True, metadata=METADATA)
    return path.read_bytes()


@pytest.mark.parametrize(("change", "message"), DAMAGE, ids=[message[:40] for _, message in DAMAGE])
def test_contradictions_are_named(path, whole, change, message):
    path.write_bytes(whole)
    reseal(path, change)
    with pytest.raises(ModelFileError, match=message) as caught:
        (read_metadata if message.startswith("metadata") else load)(path)
    assert str(caught.value).startswith(f"{path}: ") and caught.value.path == str(path)
    again = pickle.loads(pickle.dumps(caught.value))
    assert str(again) == str(caught.value) and again.field == caught.value.field


def _raw(header, body=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + body


def _meta(text):
    return _raw({"__metadata__": {"fastmlp model": text}})


def _entry(**change):
    return {"a": {"dtype": "F64", "shape": [1], "data_offsets": [0, 8]} | change}


FOREIGN = {
    "empty": b"",
    "short": b"\x01\x02",
    "text": b"hello, this is some text",
    "pickle": pickle.dumps({"a": 1}),
    "npy": b"\x93NUMPY\x01\x00v\x00" + bytes(200),
    "other safetensors": _raw({}),
    "header longer than the file": _raw({}, length=100),
    "header of 2^63 bytes": _raw({}, length=2**63),
    "header of 5 MiB": _raw(b" " * (5 << 20)),
    "no JSON": _meta("{"),
    "a list": _meta("[]"),
    "deep JSON": _meta("[" * 900_000),
    "deep dicts": _meta('{"a":' * 300_000),
    "deep header": _raw(b"[" * 900_000),
    "NaN": _meta('{"format": NaN}'),
    "a long number": _meta('{"format": ' + "9" * 500_000 + "}"),
    "no version": _meta("{}"),
    "a strange version": _meta('{"format": "1.0.0"}'),
    "a number as version": _meta('{"format": 1.0}'),
    "no checksum": _meta('{"format": "1.0"}'),
    "a wrong checksum": _meta('{"format": "1.0", "sha256": "00"}'),
    "overlapping tensors": _raw(_entry() | {"b": _entry()["a"]}, bytes(8)),
    "a tensor behind the end": _raw(_entry(data_offsets=[8, 16]), bytes(8)),
    "a tensor that is too large": _raw(_entry(shape=[2**61, 2**61]), bytes(8)),
    "2^62 numbers in no bytes": _raw(_entry(shape=[0, 2**62], data_offsets=[0, 0])),
    "200 dimensions": _raw(_entry(shape=[1] * 200), bytes(8)),
    "a gap": _raw(_entry(), bytes(16)),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_foreign_files_are_refused_in_little_memory(path, kind):
    path.write_bytes(FOREIGN[kind])
    tracemalloc.start()
    try:
        for function in (load, read_metadata):
            with pytest.raises(ModelFileError) as caught:
                function(path)
            assert str(path) in str(caught.value) and len(str(caught.value)) < 3000
        assert tracemalloc.get_traced_memory()[1] < 40 * len(FOREIGN[kind]) + 2_000_000
    finally:
        tracemalloc.stop()


def test_sizes_are_compared_before_anything_is_read(path):
    for kind, message in (
        ("header of 5 MiB", "file: its header has 5242880 bytes, that of a model at most 4194304"),
        ("header of 2^63 bytes", "file: this is no safetensors file, or it was cut short: it has 10 bytes"),
    ):
        path.write_bytes(FOREIGN[kind])
        with pytest.raises(ModelFileError, match=message):
            load(path)


def test_hostile_tensors_are_refused(path):
    for name in ("2^62 numbers in no bytes", "200 dimensions"):
        path.write_bytes(FOREIGN[name])
        n = int.from_bytes(path.read_bytes()[:8], "little")
        header = json.loads(path.read_bytes()[8 : 8 + n])
        inner = {"format": "1.0", "tensors_sha256": "0"}
        inner["sha256"] = hashlib.sha256(json.dumps(inner, sort_keys=True).encode()).hexdigest()
        metadata = {"__metadata__": {"fastmlp model": json.dumps(inner)}}
        path.write_bytes(_raw(metadata | header, bytes(8 if n > 300 else 0)))
        with pytest.raises(ModelFileError, match="tensors: "):
            load(path)


def test_missing_files_and_folders_are_os_errors(tmp_path):
    for function in (load, read_metadata):
        with pytest.raises(FileNotFoundError, match="nothing"):
            function(tmp_path / "nothing")
        with pytest.raises(OSError, match="no regular file"):
            function(tmp_path)


def test_sizes_in_parameters_allocate_nothing(path):
    fitted("defaults").save(path)
    reseal(path, _set("parameters", "hidden_layer_sizes", to=[10**9, 10**9]))
    tracemalloc.start()
    model = load(path)
    assert tracemalloc.get_traced_memory()[1] < 2_000_000
    tracemalloc.stop()
    assert model.hidden_layer_sizes == [10**9, 10**9] and len(model.predict(X)) == len(X)
    with pytest.raises(MemoryError, match="hidden_layer_sizes"):
        model.fit(X, Y)


# --- damage, at random ------------------------------------------------------------------------------------------------

N_MUTATIONS = int(os.environ.get("FASTMLP_MUTATIONS", "300"))


def mutated_bytes(rng, content):
    """Flipped bits, holes, cuts, insertions, other lengths, digits and offsets."""
    content = bytearray(content)
    n = int.from_bytes(content[:8], "little")
    kind = rng.randrange(9)
    at = rng.randrange(len(content) if rng.random() < 0.5 else n)
    if kind == 0:
        for _ in range(rng.choice([1, 1, 4, 64])):
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    elif kind == 1:
        del content[at:]
    elif kind == 2:
        del content[at : at + rng.choice([1, 8, 100])]
    elif kind == 3:
        content[at:at] = rng.randbytes(rng.choice([1, 8, 100]))
    elif kind == 4:
        lengths = [0, 1, n - 1, n + 1, len(content), 2**32, 2**63, rng.randrange(2**64)]
        content[:8] = struct.pack("<Q", rng.choice(lengths))
    elif kind == 5:
        digits = [i for i in range(8, 8 + n) if chr(content[i]).isdigit()]
        for _ in range(rng.choice([1, 3])):
            content[rng.choice(digits)] = ord(rng.choice("0123456789"))
    elif kind == 6:
        end = min(len(content), at + rng.choice([8, 200]))
        other = rng.randrange(len(content))
        content[at:end] = content[other : other + end - at]
    elif kind == 7:
        content[8 : 8 + n] = bytes(content[8 : 8 + n]).replace(*rng.choice(REPLACED), rng.choice([1, -1]))
    else:
        content[8 : 8 + n] = rng.choice([b"[", b'{"a":', b" "]) * (n // rng.choice([1, 5]))
    return bytes(content)


REPLACED = [
    (b'"F64"', b'"F32"'),
    (b'"shape":[', b'"shape":[9'),
    (b'"data_offsets":[', b'"data_offsets":[1'),
    (b"true", b"null"),
    (b"coefs_.0", b"coefs_.1"),
    (b"{", b"["),
    (b"  ", b" \n"),
]

JUNK = [
    *(None, True, -1, 0, 1, 7, 10**9, 2**53, 0.5, -1e308, "", "x", "adam", "relu", "a" * 5000),
    *([], {}, [[]], [1, 2], [None] * 99, {"float": "nan"}, {"float": "-inf"}, {"int": "9" * 300}),
    *({"tuple": [3]}, {"tuple": 3}, {"dict": [["a", 1]]}, {"dict": [[[], 1]]}),
    *({"array": "coefs_.0"}, {"text": "coefs_.0"}, {"strings": "loss_curve_"}),
    {"time": ["loss_curve_", "datetime64[D]"]},
    {"formula": {"activation": {"source": "def f(z): return z", "constants": {}, "slope": None}}},
]
JUNK = [json.dumps(junk) for junk in JUNK] + ["[" * 300 + "]" * 300, '{"tuple": [' * 300 + "1" + "]}" * 300]


def mutated_content(rng, header, tensors):
    """Values put elsewhere, dropped or replaced by junk, in a file whose checksums are right."""
    for _ in range(rng.choice([1, 1, 2, 5])):
        if rng.random() < 0.3:
            _mutate_tensor(rng, tensors)
            continue
        place = header[rng.choice(["parameters", "attributes", "attributes", "training", "training"])]
        while isinstance(place, dict | list) and place:
            key = rng.choice(list(place)) if isinstance(place, dict) else rng.randrange(len(place))
            if not isinstance(place[key], dict | list) or rng.random() < 0.15:
                break
            place = place[key]
        if not place:
            continue
        if rng.random() < 0.2:
            del place[key]
        else:
            place[key] = json.loads(rng.choice(JUNK))


def _mutate_tensor(rng, tensors):
    name = rng.choice(list(tensors))
    tensor = tensors[name]
    changes = [
        lambda: tensor.reshape(-1),
        lambda: tensor.T.copy(),
        lambda: tensor[:0],
        lambda: tensor[:-1],
        lambda: np.concatenate([tensor, tensor]),
        lambda: tensor.astype(rng.choice(["f4", "f8", "i8", "u4", "u1", "?"])),
        lambda: np.zeros((0, 2**40)),
        lambda: np.full_like(tensor, rng.choice([0, 1])),
        lambda: np.full(tensor.shape, rng.choice([np.nan, np.inf, -1e300, 1e300])),
        lambda: np.array(3.0),
        lambda: np.frombuffer(rng.randbytes(tensor.nbytes), tensor.dtype).reshape(tensor.shape).copy(),
    ]
    with np.errstate(all="ignore"):
        tensors[name] = np.asarray(rng.choice(changes)() if tensor.ndim else np.zeros(4), order="C")


def _outcome(path, expected):
    """Whether the file was "refused", or is "whole" or "another" model that can be used."""
    try:
        model = load(path)
    except ModelFileError as error:
        assert str(error).startswith(f"{path}: ") and len(str(error)) < 3000
        return "refused"
    rows = np.ones((3, model.coefs_[0].shape[0]))
    if rows.shape[1] == X.shape[1] and same(expected, outputs_or_none(model, X)):
        return "whole"
    outputs_or_none(model, rows)
    return "another"


def outputs_or_none(model, rows):
    """Its outputs, None if there is a clear error: parameters may be valid one by one and make no sense together."""
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            return outputs(model, rows)
    except (ValueError, TypeError):
        return None


@pytest.mark.parametrize("what", ["bytes", "content"])
def test_mutated_files_are_refused_or_make_sense(path, whole, what, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # these files need not outlive a power cut
    # the error of an unknown backend looks for engines, which takes the memory of imports that fail
    monkeypatch.setattr(backends, "available", lambda: ("cython",))
    rng = random.Random(0)
    path.write_bytes(whole)
    expected, model = outputs(load(path), X), modelfile.read(path)
    found, largest = Counter(), 0
    for _ in range(N_MUTATIONS):
        if what == "bytes":
            path.write_bytes(mutated_bytes(rng, whole))
        else:
            header, tensors = copy.deepcopy(model.header), dict(model.tensors)
            mutated_content(rng, header, tensors)
            path.unlink()  # to replace a file takes longer than all the rest
            modelfile.write(path, header, tensors)
        tracemalloc.start()
        found[_outcome(path, expected)] += 1
        largest = max(largest, tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    print(f"\n{what}: {dict(found)}, a file has {len(whole)} bytes, the most memory for one was {largest} bytes")
    assert largest < 40 * len(whole) + 2_000_000
    assert found["refused"] > N_MUTATIONS / 3
    if what == "bytes":
        assert not found["another"]  # what the checksums are for
