"""Checkpoints: exact round trips, damaged files, writing whole or not at all, and fits that are killed and resumed."""

import json
import math
import os
import pickle
import random
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fastmlp import MLPClassifier
from fastmlp.training import checkpoint

from tiers import exhaustive

# ------------------------------------------------------------------------------- round trips


def equal(a, b):
    """Of the same types and the same bits, all the way down; all NaNs of Python are one."""
    if type(a) is not type(b):
        return False
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, dict):
        return list(a) == list(b) and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(equal, a, b))
    if isinstance(a, float):
        return (math.isnan(a) and math.isnan(b)) or (a == b and math.copysign(1, a) == math.copysign(1, b))
    return a == b


def _snapshot():
    """Small, with something of every kind."""
    rng = np.random.RandomState(0)
    return {
        "params": rng.normal(size=20).astype(np.float32),
        "optimizer": {"t": 12, "states": [rng.normal(size=5), np.zeros(0)], "rate": 1e-3, "name": "adam"},
        "random_state": {"bit_generator": "MT19937", "key": rng.randint(2**32, size=6, dtype=np.uint32), "pos": 624},
        "loss_curve": [0.5, math.nan, math.inf, -math.inf, -0.0, 5e-324, 0.1],
        "scores": None,
        "flags": [True, False, 0, 1, 2**70, -(2**63)],
        "array": np.array(7, dtype=np.int64),
        "mask": np.array([[True, False]]),
        'odd ∞ \ud800 "key"': {"array": {"name": "array_0"}, "dict": {}, "": []},
    }


def test_everything_comes_back_as_it_was(tmp_path):
    path = tmp_path / "fit.npz"
    checkpoint.save(path, _snapshot())
    loaded = checkpoint.load(path)
    assert equal(loaded, _snapshot())
    loaded["params"] += 1  # an array of its own, to be trained on
    assert equal(checkpoint.load(str(path)), _snapshot())
    assert os.listdir(tmp_path) == ["fit.npz"]


NUMERIC = hnp.boolean_dtypes() | hnp.integer_dtypes() | hnp.unsigned_integer_dtypes() | hnp.floating_dtypes()
NUMERIC |= hnp.complex_number_dtypes()
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
LEAVES |= hnp.arrays(NUMERIC, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
TREES = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4))


@given(st.dictionaries(st.text(), TREES, max_size=5))
def test_any_snapshot_comes_back(tmp_path_factory, snapshot):
    path = tmp_path_factory.mktemp("trees") / "any"
    checkpoint.save(path, snapshot)
    assert equal(checkpoint.load(path), snapshot)


@pytest.mark.parametrize(
    "array",
    [np.asfortranarray(np.arange(6.0).reshape(2, 3)), np.arange(12)[::-3], np.broadcast_to(np.float32(2), (2, 2))],
    ids=["Fortran", "strided", "broadcast"],
)
def test_arrays_of_any_layout(tmp_path, array):
    checkpoint.save(tmp_path / "a", {"a": array})
    assert equal(checkpoint.load(tmp_path / "a")["a"], np.ascontiguousarray(array))


def test_numpy_scalars_become_plain_numbers(tmp_path):
    checkpoint.save(tmp_path / "a", {"a": [np.float32(0.1), np.int64(3), np.bool_(True), np.float64(0.1)]})
    assert equal(checkpoint.load(tmp_path / "a"), {"a": [float(np.float32(0.1)), 3, True, 0.1]})


@pytest.mark.parametrize(
    ("snapshot", "message"),
    [
        ([1], "a snapshot is a dict, got list"),
        ({"a": {"b": [0, object()]}}, r"snapshot\['a'\]\['b'\]\[1\] is object"),
        ({"a": (1, 2)}, r"snapshot\['a'\] is tuple"),
        ({"a": {1: 2}}, r"snapshot\['a'\] has the key 1"),
        ({"a": np.array([None])}, "is an array of object"),
        ({"a": np.array(["b"])}, "is an array of <U1"),
        ({"a": np.zeros(2, dtype="i4,f8")}, "is an array of "),
        ({"a": 1j}, "is complex"),
        ({"a": len}, "is builtin_function_or_method"),
    ],
)
def test_what_is_no_snapshot_is_refused(tmp_path, snapshot, message):
    with pytest.raises(TypeError, match=message):
        checkpoint.save(tmp_path / "a", snapshot)
    assert not os.listdir(tmp_path)


# ------------------------------------------------------------------------------- damage


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "fit.npz"
    checkpoint.save(path, _snapshot())
    return path.read_bytes()


def _loads_equal_or_says_why(path, content):
    """False if the damage was noticed; anything but these two fails the test."""
    path.write_bytes(content)
    try:
        return equal(checkpoint.load(path), _snapshot()) or pytest.fail("damage went unnoticed")
    except (ValueError, OSError) as error:
        assert str(path) in str(error) and len(str(error)) > len(str(path)) + 20
        return False


def test_flipped_bytes_are_noticed_or_mean_nothing(tmp_path, content):
    rng = random.Random(0)
    noticed = 0
    for _ in range(600):
        damaged = bytearray(content)
        for _ in range(rng.choice([1, 1, 2, 8])):
            damaged[rng.randrange(len(damaged))] ^= rng.choice([1 << rng.randrange(8), rng.randrange(1, 256)])
        noticed += not _loads_equal_or_says_why(tmp_path / "damaged", damaged)
    assert noticed > 300


def test_truncated_files_are_noticed(tmp_path, content):
    rng = random.Random(1)
    for length in {0, 1, 4, 22, len(content) - 1, *(rng.randrange(len(content)) for _ in range(200))}:
        assert not _loads_equal_or_says_why(tmp_path / "short", content[:length])


def test_holes_and_insertions_are_noticed_or_mean_nothing(tmp_path, content):
    rng = random.Random(2)
    for _ in range(100):
        start = rng.randrange(len(content))
        stop = min(len(content), start + rng.randrange(1, 600))
        _loads_equal_or_says_why(tmp_path / "hole", content[:start] + bytes(stop - start) + content[stop:])
        _loads_equal_or_says_why(tmp_path / "cut", content[:start] + content[stop:])
        _loads_equal_or_says_why(tmp_path / "more", content[:start] + rng.randbytes(20) + content[start:])


def _rewritten(path, content, change):
    """The same archive with `change` applied to its header."""
    path.write_bytes(content)
    with np.load(path) as members:
        arrays = dict(members)
    header = json.loads(arrays.pop("header").tobytes())
    change(header, arrays)
    text = np.frombuffer(json.dumps(header).encode(), dtype=np.uint8)
    with path.open("wb") as stream:
        np.savez(stream, header=text, **arrays)
    return path


def _entry(header):
    return header["snapshot"]["dict"]["params"]["array"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda header, arrays: header.update(format="cake"), "of another kind"),
        (lambda header, arrays: header.update(version=2), "version 2, this fastmlp reads version 1"),
        (lambda header, arrays: header.update(snapshot=[]), "holds no snapshot"),
        (lambda header, arrays: header.update(snapshot={"cake": 1}), "unknown kind 'cake'"),
        (lambda header, arrays: header.pop("snapshot"), "snapshot"),
        (lambda header, arrays: arrays.pop("array_0"), "array_0"),
        (lambda header, arrays: _entry(header).update(dtype="<f8"), "array_0 has dtype <f4, its header says <f8"),
        (
            lambda header, arrays: _entry(header).update(shape=[4, 5]),
            r"has shape \[20\], its header says \[4, 5",
        ),
        (lambda header, arrays: arrays.update(array_0=np.zeros((4, 5), order="F")), "array_0 is of float64"),
        (lambda header, arrays: arrays.update(array_0=np.array(["a"])), "array_0 is of <U1"),
    ],
)
def test_contradictions_are_named(tmp_path, content, change, message):
    path = _rewritten(tmp_path / "wrong", content, change)
    with pytest.raises(ValueError, match=message) as caught:
        checkpoint.load(path)
    assert str(path) in str(caught.value)


def test_foreign_files_are_refused(tmp_path):
    paths = [tmp_path / name for name in ("empty", "text", "pickle", "npy", "npz", "zip", "deflated")]
    empty, text, pickled, npy, npz, archive, deflated = paths
    empty.touch()
    text.write_text("hello", encoding="utf-8")
    pickled.write_bytes(pickle.dumps(_snapshot()))
    with npy.open("wb") as stream:
        np.save(stream, np.arange(3))
    with npz.open("wb") as stream:
        np.savez(stream, np.arange(3))
    with zipfile.ZipFile(archive, "w") as members:
        members.writestr("header.npy", "hello")
    with deflated.open("wb") as stream:
        np.savez_compressed(stream, header=np.zeros(9, dtype=np.uint8))
    for path in paths:
        with pytest.raises(ValueError, match=r"is no fastmlp checkpoint, or is damaged: .") as caught:
            checkpoint.load(path)
        assert str(path) in str(caught.value)


class _Bomb:
    def __reduce__(self):
        return pytest.fail, ("a pickle was run",)


def test_pickles_inside_are_not_run(tmp_path):
    bomb = np.array([_Bomb()], dtype=object)
    for name in ("header", "array_0"):
        with (tmp_path / name).open("wb") as stream:
            header = {"format": checkpoint.FORMAT, "version": checkpoint.VERSION}
            header["snapshot"] = {"dict": {"a": {"array": {"name": "array_0", "dtype": "|O", "shape": [1]}}}}
            text = np.frombuffer(json.dumps(header).encode(), dtype=np.uint8)
            np.savez(stream, **({"header": text} | {name: bomb}))
        with pytest.raises(ValueError, match="no numeric array"):
            checkpoint.load(tmp_path / name)


def test_missing_files_are_os_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing"):
        checkpoint.load(tmp_path / "nothing")
    with pytest.raises(OSError):
        checkpoint.load(tmp_path)


# ------------------------------------------------------------------------------- whole or not at all


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "fit.npz"
    checkpoint.save(path, {"epoch": 1})

    def full(stream, **arrays):
        stream.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match="No space left"):
        checkpoint.save(path, {"epoch": 2})
    assert checkpoint.load(path) == {"epoch": 1}
    assert os.listdir(tmp_path) == ["fit.npz"]


def test_a_folder_or_a_missing_folder_is_an_os_error(tmp_path):
    with pytest.raises(OSError, match="no regular file"):
        checkpoint.save(tmp_path, {})
    with pytest.raises(FileNotFoundError):
        checkpoint.save(tmp_path / "missing" / "fit.npz", {})


@pytest.mark.skipif(os.name != "posix", reason="symbolic links")
def test_a_symbolic_link_stays_one(tmp_path):
    link = tmp_path / "latest"
    link.symlink_to(tmp_path / "fit.npz")
    checkpoint.save(link, {"epoch": 1})
    assert link.is_symlink() and checkpoint.load(tmp_path / "fit.npz") == {"epoch": 1}


# ------------------------------------------------------------------------------- kill and resume

# A process of its own, so that it may fork: each fit, killed or resumed, runs in a child of it.  It prints a line per
# kill: whether the resumed fit came to the very bits of the one that was left alone, and how many epochs it trained.
KILLER = """
import copy, os, random, signal, sys, time, warnings
from pathlib import Path
import numpy as np
from sklearn.datasets import make_classification
from fastmlp import MLPClassifier
from fastmlp.training.callbacks import Checkpoint

folder, kills = Path(sys.argv[1]), int(sys.argv[2])
warnings.simplefilter("ignore")
X, y = make_classification(120, 8, n_informative=5, n_classes=3, random_state=0)
SETTINGS = [
    {"solver": "adam"},
    {"solver": "sgd", "early_stopping": True, "learning_rate": "adaptive", "n_iter_no_change": 3},
    {"solver": "adamw", "dropout": 0.3, "batch_norm": True, "learning_rate": "cosine"},
    {"solver": "nadam", "random_state": np.random.RandomState(3), "n_iter_no_change": 2, "tol": 0.02},
]

def estimator(settings, callbacks):
    parameters = {"batch_size": 20, "max_iter": 40, "random_state": 0, **copy.deepcopy(settings)}
    return MLPClassifier((6,), **parameters, callbacks=callbacks)

def outcome(fitted):
    arrays = [*fitted.coefs_, *fitted.intercepts_, fitted.predict_proba(X)]
    return [a.tobytes() for a in arrays], fitted.loss_curve_, fitted.validation_scores_, fitted.n_iter_

def child(function):
    # calls it in a new process, whose number is returned
    pid = os.fork()
    if pid:
        return pid
    try:
        function()
        os._exit(0)
    except BaseException as error:
        print(repr(error), file=sys.stderr, flush=True)
        os._exit(1)

def resume(settings, path, left_alone):
    epochs = []
    again = estimator(settings, [lambda info: epochs.append(info.epoch)]).fit(X, y, resume_from=path)
    print("equal" if outcome(again) == left_alone else "different", len(epochs), flush=True)

rng = random.Random(0)
expected = [outcome(estimator(settings, None).fit(X, y)) for settings in SETTINGS]
done = 0
while done < kills:
    settings, left_alone = SETTINGS[done % len(SETTINGS)], expected[done % len(SETTINGS)]
    path = folder / f"{done}.npz"
    slow = lambda info: time.sleep(0.002)
    start = time.monotonic()
    pid = child(lambda: estimator(settings, [Checkpoint(path), slow]).fit(X, y))
    while not path.exists():  # before that there is nothing to resume
        assert time.monotonic() < start + 20, "no checkpoint was written"
        time.sleep(0.0005)
    time.sleep(rng.uniform(0, 0.15))
    os.kill(pid, signal.SIGKILL)
    if not os.WIFSIGNALED(os.waitpid(pid, 0)[1]):
        path.unlink()  # too late, it was through
        continue
    os.waitpid(child(lambda: resume(settings, path, left_alone)), 0)
    done += 1
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no SIGKILL on this system")
@pytest.mark.parametrize("kills", [8, *exhaustive(20)])
def test_a_killed_fit_resumes_to_the_uninterrupted_weights(tmp_path, kills):
    command = [sys.executable, "-c", KILLER, str(tmp_path), str(kills)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    results, epochs = done.stdout.split()[::2], done.stdout.split()[1::2]
    assert results == ["equal"] * kills, done.stdout + done.stderr
    assert len(set(epochs)) > kills // 6, epochs  # the moments were different ones, and not all too late


def test_resuming_from_a_damaged_or_foreign_file_is_an_error(tmp_path, content):
    X, y = np.zeros((10, 2)), np.arange(10) % 2
    path = tmp_path / "short.npz"
    path.write_bytes(content[:-10])
    with pytest.raises(ValueError, match="is no fastmlp checkpoint, or is damaged"):
        MLPClassifier().fit(X, y, resume_from=path)
    with pytest.raises(FileNotFoundError):
        MLPClassifier().fit(X, y, resume_from=tmp_path / "nothing.npz")
