"""Checkpoints that are forged, at random: resumed, or refused with a ValueError, in little time and memory.

``FASTMLP_MUTATIONS=20000 pytest tests/test_forged_checkpoints.py -s`` runs a longer campaign with counts.
"""

import copy
import json
import os
import random
import socket
import time
import tracemalloc
import warnings
from collections import Counter

import numpy as np
import pytest
from hypothesis import settings

from fastmlp import MLPClassifier, MLPRegressor
from fastmlp.training import checkpoint
from fastmlp.training.callbacks import Checkpoint

from small_training import Y_VALUES, X, Y

SMALL = {"hidden_layer_sizes": (3,), "max_iter": 4, "random_state": 0, "batch_size": 40}
FITS = {
    "classifier": (
        MLPClassifier(
            **SMALL, solver="nadam", early_stopping=True, batch_norm=True, dropout=0.1, learning_rate="cosine"
        ),
        {"X": X, "y": Y},
    ),
    "regressor": (
        MLPRegressor(**SMALL, solver="sgd", learning_rate="plateau", activation="prelu"),
        {"X": X, "y": Y_VALUES, "X_val": X[:9], "y_val": Y_VALUES[:9]},
    ),
    "plain": (MLPRegressor(**SMALL), {"X": X, "y": Y_VALUES}),
}
# 99 in the quick tier, 2000 in all
N_MUTATIONS = int(os.environ.get("FASTMLP_MUTATIONS", 99 if settings.default.max_examples < 25 else 2000))

JUNK = [
    *(None, True, False, -1, 0, 1, 7, 10**9, 2**53, 2**70, 10**400, 0.5, -1e308, 1e308, float("nan"), float("inf")),
    *("", "x", "adam", "score", "9" * 30, "a" * 5000, [], {}, [[]], [1, 2], [None] * 99),
    *({"dict": {}}, {"dict": {"a": 1}}, {"dict": []}, {"array": {}}, {"array": "array_0"}, {"cake": 1}),
    *({"array": {"name": f"array_{i}", "dtype": "<f8", "shape": [1]}} for i in range(3)),
]


@pytest.fixture(scope="module", params=FITS)
def forged(request, tmp_path_factory):
    """A fit, its data, and the parts of a checkpoint of it."""
    est, data = FITS[request.param]
    path = tmp_path_factory.mktemp("whole") / "fit.npz"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        copy.deepcopy(est).set_params(callbacks=[Checkpoint(path, every=2)], max_iter=2).fit(**data)
    with np.load(path) as members:
        arrays = dict(members)
    return est, data, json.loads(arrays.pop("header").tobytes()), arrays


def _places(value, found):
    """All (container, key) of a JSON value."""
    for key in value if isinstance(value, dict) else range(len(value)):
        found.append((value, key))
        if isinstance(value[key], dict | list):
            _places(value[key], found)
    return found


def mutate(rng, header, arrays):
    """Values replaced by junk, dropped, renamed or exchanged; arrays of other types, shapes and numbers."""
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        places = _places(header["snapshot"], [])
        if rng.random() < 0.35 or not places:
            _mutate_array(rng, header, arrays)
            continue
        container, key = rng.choice(places)
        kind = rng.randrange(5)
        if kind == 0:
            del container[key]
        elif kind == 1 and isinstance(container, dict):
            container[str(key) + "x"] = container.pop(key)
        elif kind == 2:
            other, at = rng.choice(places)
            container[key] = copy.deepcopy(other[at])
        else:
            container[key] = copy.deepcopy(rng.choice(JUNK))


def _mutate_array(rng, header, arrays):
    """Change an array; the header mostly agrees with it."""
    name = rng.choice(list(arrays))
    array = arrays[name]
    changes = [
        lambda: array.reshape(-1)[:-1],
        lambda: array[None],
        lambda: array[:0],
        lambda: np.concatenate([array.ravel(), array.ravel()]),
        lambda: array.astype(rng.choice(["f4", "f8", "i8", "i4", "u4", "?", "c16", ">f8", ">i8"])),
        lambda: np.zeros((0, 2**40)),
        lambda: np.full_like(array, rng.choice([0, 1, 127])),
        lambda: np.full(array.shape, rng.choice([np.nan, np.inf, -1e300, 1e300])),
        lambda: np.array(3.0),
        lambda: np.frombuffer(rng.randbytes(array.nbytes), array.dtype).reshape(array.shape),
        lambda: array[::-1],
    ]
    with np.errstate(all="ignore"):
        arrays[name] = new = np.asarray(rng.choice(changes)() if array.ndim else np.zeros(4), order="C")
    if rng.random() < 0.9:
        for container, key in _places(header["snapshot"], []):
            entry = container[key]
            if isinstance(entry, dict) and entry.get("name") == name:
                entry["dtype"], entry["shape"] = new.dtype.str, list(new.shape)


def outcome(est, data, path):
    """Whether the fit was "refused" or "resumed"."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            est.fit(**data, resume_from=path)
        except ValueError as error:
            assert str(error) and len(str(error)) < 3000
            return "refused"
        assert est.predict(data["X"]).shape == (80,)
    return "resumed"


def test_forged_checkpoints(forged, tmp_path, monkeypatch):
    est, data, header, arrays = forged
    rng, found, path, largest, slowest = random.Random(1), Counter(), tmp_path / "forged", 0, 0.0
    for _ in range(N_MUTATIONS // len(FITS)):
        this, those = copy.deepcopy(header), dict(arrays)
        mutate(rng, this, those)
        text = np.frombuffer(json.dumps(this).encode(), dtype=np.uint8)
        with path.open("wb") as stream:
            np.savez(stream, header=text, **those)
        tracemalloc.start()
        begin = time.process_time()
        found[outcome(copy.deepcopy(est), data, path)] += 1
        slowest = max(slowest, time.process_time() - begin)
        largest = max(largest, tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    print(f"\n{dict(found)}, the most memory for one was {largest} bytes, the longest took {slowest:.3f} s")
    assert found["refused"] > N_MUTATIONS / len(FITS) / 3 and found["resumed"]
    assert largest < 4_000_000 and slowest < 2


def test_arrays_are_taken_once(tmp_path):
    """Or a small file could fill any memory."""
    entry = {"array": {"name": "array_0", "dtype": "<f8", "shape": [1000]}}
    header = {"format": checkpoint.FORMAT, "version": checkpoint.VERSION, "snapshot": {"dict": {"a": [entry] * 9}}}
    with (tmp_path / "bomb").open("wb") as stream:
        np.savez(stream, header=np.frombuffer(json.dumps(header).encode(), np.uint8), array_0=np.zeros(1000))
    with pytest.raises(ValueError, match="its header refers to 'array_0' twice"):
        checkpoint.load(tmp_path / "bomb")


def test_what_is_no_regular_file_is_refused_at_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the name of a socket has 107 bytes at most
    est, data = FITS["plain"]
    paths = [tmp_path, os.devnull]
    if hasattr(os, "mkfifo"):
        os.mkfifo("pipe")
        listener = socket.socket(socket.AF_UNIX)
        listener.bind("socket")
        listener.close()
        paths += ["pipe", "socket", "/dev/zero"]
    for path in paths:
        with pytest.raises(OSError, match="is no regular file"):
            est.fit(**data, resume_from=path)
    for wrong in (0, 3.5, {"a": 1}, b"\0"):
        with pytest.raises((TypeError, ValueError)):
            est.fit(**data, resume_from=wrong)
