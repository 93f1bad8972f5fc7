"""Saved models: exact round trips, training that goes on bit for bit, versions.

Damaged and hostile files are in test_damaged_files.py.
"""

import hashlib
import json
import os
import pickle
import re
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save_file
from scipy import sparse
from sklearn.exceptions import NotFittedError

import fastmlp
from fastmlp import MLPClassifier, callbacks
from fastmlp.data import files
from fastmlp.persistence import ModelFileError, load, read_metadata, save
from fastmlp.saving import modelfile
from fastmlp.training import checkpoint
from fastmlp.training.optimizers import STOCHASTIC_SOLVERS
from fastmlp.training.schedules import SCHEDULES

from saved_models import CASES, GIVEN, LABELS, METADATA, VALUES, X, Y, fitted, outputs, reseal, same
from tiers import each_value_once

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


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


def test_sparse_labels_come_back(path):
    """Predictions of a model that was fitted on sparse labels are sparse, as before; exports do not mind."""
    model = MLPClassifier(**GIVEN).fit(X, sparse.csr_array(LABELS))
    model.save(path)
    for again in (load(path), pickle.loads(pickle.dumps(model)), fastmlp.from_sklearn(model.to_sklearn())):
        assert sparse.issparse(model.predict(X)) and type(again.predict(X)) is type(model.predict(X))
        assert (again.predict(X) != model.predict(X)).nnz == 0
    dense = MLPClassifier(**GIVEN).fit(X, LABELS)
    assert (model.predict(X).toarray() == dense.predict(X)).all()
    assert model.to_c() == dense.to_c()


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


@each_value_once
@pytest.mark.parametrize("solver", STOCHASTIC_SOLVERS)
def test_partial_fit_goes_on_bit_for_bit(path, solver, dtype):
    model = fitted("everything", dtype, solver=solver, early_stopping=False, monitor="score")
    model.save(path, optimizer_state=True)
    assert_bit_equal_training(model, load(path), Y, X.astype(dtype))


@each_value_once
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


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (5, r"the text of a formula has the entries \['constants', 'slope', 'source'\], got 5"),
        ({"source": "def f(z): return z"}, "the text of a formula has the entries"),
        ({"source": None, "constants": {}, "slope": None}, "the source of a formula is text that begins with def"),
        ({"source": " def f(z): return z", "constants": {}, "slope": None}, "text that begins with def"),
        (
            {"source": "def f(z): return z", "constants": [1], "slope": None},
            "constants of a formula are",
        ),
        (
            {"source": "def f(z): return z", "constants": {"c": "1"}, "slope": None},
            "constants of a formula are numbers",
        ),
        ({"source": "def f(z): return z", "constants": {}, "slope": False}, "the text of a formula has the entries"),
        ({"source": "def f(z): return z\x00", "constants": {}, "slope": None}, "formula, <formula>:1: .*null bytes"),
        ({"source": "def f(z, z): return z", "constants": {}, "slope": None}, "an activation takes 1 argument"),
        (
            {"source": "def f(z):\n" + "    z = z + z\n" * 5000 + "    return z", "constants": {}, "slope": None},
            "this activation is too long, it has 5000 operations, at most 2000 are allowed",
        ),
    ],
    ids=lambda value: str(value)[:40],
)
def test_forged_formulas_are_refused(path, text, reason):
    fitted("formula").save(path)

    def change(header, tensors):
        header["parameters"]["activation"][0]["formula"]["activation"] = text

    reseal(path, change)
    with pytest.raises(ModelFileError, match=r"parameters.activation: .*" + reason):
        load(path, trust_formulas=True)


def test_a_time_out_of_the_caller_stays_what_it_is(path, monkeypatch):
    fitted("formula").save(path)
    late = TimeoutError("time is up")

    def interrupted(*arguments):
        raise late

    monkeypatch.setattr("fastmlp.kernels.graph.Graph.apply", interrupted)
    with pytest.raises(TimeoutError) as caught:
        load(path, trust_formulas=True)
    assert caught.value is late


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
        (Sub(), TypeError, "save keeps MLPClassifier, MLPRegressor, .*, got Sub"),
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


#: What writes a file whole: (fitted estimator, path) -> None.
WRITERS = {
    "save": lambda model, path: model.save(path),
    "save to a Path": lambda model, path: model.save(Path(path)),
    "to_onnx": lambda model, path: model.to_onnx(path),
    "to_c": lambda model, path: model.to_c(path),
    "checkpoint": lambda model, path: checkpoint.save(path, {}),
    "callback": lambda model, path: model.set_params(callbacks=[callbacks.Checkpoint(path)]).fit(X, Y),
    "text": lambda model, path: files.write_whole(Path(path), "text"),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_errors_of_writing_name_the_path_that_was_given(writer, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a file").touch()
    model = fitted("defaults")
    for folder, kind in (
        ("missing", FileNotFoundError),
        (os.path.join("a", "b"), FileNotFoundError),
        ("a file", OSError),
    ):
        path = os.path.join(folder, "model.bin")
        with pytest.raises(kind, match=re.escape(f"there is no folder {folder!r}: {path!r}")) as caught:
            WRITERS[writer](model, path)
        assert caught.value.filename == path and caught.value.errno is not None

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left on device: 'model\.bin'"):
        WRITERS[writer](model, "model.bin")
    assert os.listdir() == ["a file"]
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)

    def forbidden(*args):
        raise PermissionError(13, "Permission denied", str(args[0]))

    monkeypatch.setattr(Path, "open", forbidden)
    with pytest.raises(PermissionError, match=r"Permission denied: 'model\.bin'"):
        WRITERS[writer](model, "model.bin")


def test_links_that_lead_nowhere_are_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, target in (("one", "other"), ("other", "one"), ("dangling", os.path.join("missing", "model"))):
        try:
            os.symlink(target, name)
        except OSError:
            pytest.skip("this system makes no symbolic links here")
    with pytest.raises(OSError, match="symbolic links: 'one'") as caught:
        fitted("defaults").save("one")
    assert caught.value.errno is not None
    with pytest.raises(FileNotFoundError, match=r"there is no folder '.+missing': 'dangling'"):
        fitted("defaults").save("dangling")


def test_names_may_be_as_long_as_the_file_system_allows(tmp_path):
    for name in ("m" * 255, "é" * 127):
        fitted("defaults").save(tmp_path / name)
        assert load(tmp_path / name).predict(X).shape == (80,)
    assert sorted(os.listdir(tmp_path)) == ["m" * 255, "é" * 127]


def test_without_safetensors_the_extra_is_named(path, monkeypatch):
    model = fitted("defaults")
    model.save(path)
    monkeypatch.setitem(sys.modules, "safetensors", None)
    for function in (lambda: model.save(path), lambda: load(path), lambda: read_metadata(path)):
        with pytest.raises(ImportError, match=r'pip install "fastmlp\[save\]"'):
            function()


# --- versions ---------------------------------------------------------------------------------------------------------


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


def test_paths_that_are_none():
    with pytest.raises(TypeError, match=r"os\.PathLike"):
        fastmlp.load(99999)
    with pytest.raises(fastmlp.persistence.ModelFileError, match="null"):
        fastmlp.load("a\0b")
