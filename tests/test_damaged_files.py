"""Saved models that are damaged or hostile, by hand and at random: refused with a clear error, in little memory.

``FASTMLP_MUTATIONS=10000 pytest tests/test_damaged_files.py -k mutated -s`` runs a longer campaign with counts.
"""

import copy
import hashlib
import json
import os
import pickle
import random
import struct
import tracemalloc
import warnings
from collections import Counter

import numpy as np
import pytest
from hypothesis import settings

import fastmlp
from fastmlp.engines import backends
from fastmlp.persistence import ModelFileError, load, read_metadata
from fastmlp.saving import modelfile

from saved_models import (
    METADATA,
    X,
    Y,
    fitted,
    outputs,
    reseal,
    same,
)

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


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

# 72 in the quick tier, 300 in all
N_MUTATIONS = int(os.environ.get("FASTMLP_MUTATIONS", 12 * settings.default.max_examples))


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
    *(2**70, 10**400, {"int": "9" * 390}),
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


def _outcome(path, expected, trust=False):
    """Whether the file was "refused", or is "whole" or "another" model that can be used."""
    try:
        model = load(path, trust_formulas=trust)
    except ModelFileError as error:
        assert str(error).startswith(f"{path}: ") and len(str(error)) < 3000
        return "refused"
    rows = np.ones((3, model.coefs_[0].shape[0]))
    if rows.shape[1] == X.shape[1] and same(expected, outputs_or_none(model, X)):
        return "whole"
    outputs_or_none(model, rows)
    return "another"


@fastmlp.activation
def swish(z):
    return z / (1 + exp(-z))  # noqa: F821


@fastmlp.loss
def cauchy(y, p):
    return log1p((y - p) * (y - p))  # noqa: F821


def test_mutated_files_that_are_trusted(path, monkeypatch):
    """Formulas of a file are compiled: refused, or a model that predicts and trains, or says why it cannot."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    options = {"hidden_layer_sizes": (4,), "activation": swish, "loss": cauchy, "solver": "nadam", "random_state": 0}
    est = fastmlp.MLPRegressor(**options, learning_rate="plateau", max_iter=3).fit(X, X[:, 0])
    est.save(path, optimizer_state=True)
    rng, found, expected, whole = random.Random(1), Counter(), outputs(est, X), modelfile.read(path)
    for _ in range(N_MUTATIONS):
        header, tensors = copy.deepcopy(whole.header), dict(whole.tensors)
        mutated_content(rng, header, tensors)
        path.unlink()
        modelfile.write(path, header, tensors)
        found[_outcome(path, expected, trust=True)] += 1
        if path.exists() and not header["parameters"].get("callbacks"):
            _train_on(path)
    assert found["refused"] > N_MUTATIONS / 3 and found["whole"]


def _train_on(path):
    """Train what can be loaded: a ValueError may say why it cannot be done."""
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            model = load(path, trust_formulas=True)
            rows = np.ones((6, model.coefs_[0].shape[0]))
            if model.n_ens > 1 or model.n_cv > 1:
                return  # an ensemble has no partial_fit
            model.partial_fit(rows, np.zeros((6, model.n_outputs_)))
    except ValueError as error:
        assert str(error)


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
