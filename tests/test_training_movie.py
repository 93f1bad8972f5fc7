"""Films of a training: a frame for each epoch that was asked for, and a file that is whole or not there."""

import copy
import os
import pickle
import stat
import sys
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_iris, make_moons
from sklearn.model_selection import cross_val_score

from fastmlp import MLPClassifier, MLPRegressor, RealMLPRegressor
from fastmlp.callbacks import TrainingMovie

animation = pytest.importorskip("matplotlib.animation")

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X, y = make_moons(40, noise=0.2, random_state=0)
QUICK = {"dpi": 30, "grid_resolution": 10, "fps": 5}
SMALL = QUICK | {"panels": ["region"]}


def moons(movie, **options):
    settings = {"max_iter": 5, "learning_rate_init": 0.1, "random_state": 0, "callbacks": [movie]} | options
    return MLPClassifier((4,), **settings).fit(X, y)


def frames(path):
    """The pictures of a film, and how long each is shown, in milliseconds."""
    with Image.open(path) as film:
        shown = []
        for i in range(film.n_frames):
            film.seek(i)
            shown.append((np.asarray(film.convert("RGB")), film.info["duration"]))
    return shown


def test_a_frame_for_each_epoch(tmp_path):
    movie = TrainingMovie(tmp_path / "a.gif", X, y, **SMALL)
    clf = moons(movie)
    assert movie.n_frames_ == 6  # the first weights, and five epochs
    found = frames(movie.path)
    assert len(found) == 6 and [duration for _, duration in found] == [200] * 5 + [1200]  # the end stays
    assert os.listdir(tmp_path) == ["a.gif"]
    for (before, _), (after, _) in pairwise(found):
        assert (before != after).any()
    # the fit is that without a film
    plain = moons(movie, callbacks=None)
    np.testing.assert_array_equal(clf.coefs_[0], plain.coefs_[0])


def test_what_a_frame_keeps_is_of_its_epoch(tmp_path, monkeypatch):
    kept = {}
    monkeypatch.setattr(TrainingMovie, "_write", lambda self, frames, *_: kept.update({f.epoch: f for f in frames}))
    movie = TrainingMovie(tmp_path / "a.gif", X, y, 2, **QUICK)
    moons(movie, max_iter=5)
    assert [*kept] == [0, 2, 4, 5]
    for epoch in (2, 4, 5):
        there = moons(movie, max_iter=epoch, callbacks=None)
        np.testing.assert_array_equal(kept[epoch].layers["coefs"][0], there.coefs_[0])
        points = np.stack(np.meshgrid(*movie._grid()), axis=-1).reshape(-1, 2)
        np.testing.assert_allclose(kept[epoch].outputs, there.predict_proba(points), rtol=1e-5)


def test_the_last_frame_is_the_fitted_network(tmp_path, monkeypatch):
    kept = []
    monkeypatch.setattr(TrainingMovie, "_write", lambda self, frames, *_: kept.extend(frames))
    movie = TrainingMovie(tmp_path / "a.gif", X, y, every=1000, **QUICK)
    clf = moons(movie, max_iter=200, n_iter_no_change=2, tol=0.05)
    assert clf.n_iter_ < 200 and [frame.epoch for frame in kept] == [0, clf.n_iter_]
    np.testing.assert_array_equal(kept[-1].layers["coefs"][0], clf.coefs_[0])


def test_a_warm_start_goes_on(tmp_path, monkeypatch):
    kept = []
    monkeypatch.setattr(TrainingMovie, "_write", lambda self, frames, *_: kept.extend(frames))
    movie = TrainingMovie(tmp_path / "a.gif", X, y, **QUICK)
    clf = moons(movie, max_iter=2, warm_start=True)
    clf.fit(X, y)
    assert [(frame.epoch, frame.n_rows) for frame in kept] == [(0, 0), (1, 1), (2, 2), (0, 2), (1, 3), (2, 4)]
    np.testing.assert_array_equal(kept[2].outputs, kept[3].outputs)


SHAPES = {
    "two classes": (MLPClassifier, X, y, {}),
    "decision values": (MLPClassifier, X, y, {"loss": "hinge"}),
    "three classes": (MLPClassifier, load_iris().data[::5, :2], load_iris().target_names[load_iris().target[::5]], {}),
    "a plane": (MLPRegressor, X, X[:, 0], {}),
    "a curve": (MLPRegressor, X[:, :1], X[:, 1], {"early_stopping": True}),
    "probabilities over a feature": (MLPClassifier, X[:, :1], y, {}),
    "no region": (MLPClassifier, load_iris().data[::5], load_iris().target[::5], {}),
}


@pytest.mark.parametrize("case", SHAPES)
def test_tasks(case, tmp_path):
    estimator, rows, targets, options = SHAPES[case]
    movie = TrainingMovie(tmp_path / "a.gif", rows, targets, 2, **QUICK)
    estimator(hidden_layer_sizes=(3,), max_iter=2, callbacks=[movie], **options).fit(rows, targets)
    assert len(frames(movie.path)) == 2


def test_panels_are_chosen(tmp_path):
    sizes = []
    for panels in (["curves"], ["weights", "curves"]):
        moons(TrainingMovie(tmp_path / "a.gif", panels=panels, **QUICK), max_iter=1)
        sizes.append(frames(tmp_path / "a.gif")[0][0].shape[1])
    assert sizes[0] < sizes[1]
    with pytest.raises(ValueError, match="cannot show 'region': X has 0 features, and a region needs one or two"):
        moons(TrainingMovie(tmp_path / "b.gif", panels=["region"]))
    tabular = RealMLPRegressor(n_ens=1, max_iter=1, callbacks=[TrainingMovie(tmp_path / "c.gif", **QUICK)])
    tabular.fit(X, y)  # whose weights are not plain: its curves
    assert len(frames(tmp_path / "c.gif")) >= 1


def test_a_fit_that_fails_leaves_the_film_of_its_epochs(tmp_path):
    def fails(info):
        if info.epoch == 3:
            raise RuntimeError("enough")

    movie = TrainingMovie(tmp_path / "a.gif", X, y, **SMALL)
    with pytest.raises(RuntimeError, match="enough"):
        moons(None, callbacks=[fails, movie])
    assert len(frames(movie.path)) >= 3


def test_nothing_is_half_written(tmp_path, monkeypatch):
    path = tmp_path / "a.gif"
    moons(TrainingMovie(path, X, y, **SMALL), max_iter=1)
    before = path.read_bytes()

    def fails(self, **options):
        raise RuntimeError("no frame")

    monkeypatch.setattr(animation.PillowWriter, "grab_frame", fails)
    with pytest.raises(RuntimeError, match="no frame"):
        moons(TrainingMovie(path, X, y, **SMALL))
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["a.gif"]


def test_weights_that_are_not_finite_are_drawn_as_such(tmp_path):
    movie = TrainingMovie(tmp_path / "a.gif", X, y, panels=["region", "weights"], **QUICK)

    def spoil(info):
        info.estimator.coefs_[0][0, 0] = np.nan

    with pytest.raises(ValueError, match="non-finite"):
        moons(None, callbacks=[spoil, movie], max_iter=1)
    assert len(frames(movie.path)) == 2


def test_copies_have_filmed_nothing(tmp_path):
    movie = TrainingMovie(tmp_path / "a.gif", X, y, **SMALL)
    movie.on_fit_begin(MLPClassifier((2,), max_iter=1).fit(X, y))
    assert len(movie._frames) == 1
    for twin in (copy.deepcopy(movie), pickle.loads(pickle.dumps(movie))):
        assert twin._frames == [] and twin.every == 1
    assert repr(movie).startswith("TrainingMovie('") and repr(movie).endswith("a.gif', every=1)")
    cross_val_score(MLPClassifier((2,), max_iter=1, callbacks=[movie]), X, y, cv=2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"path": "film.avi"}, "path must end in .gif or .mp4, got 'film.avi'"),
        ({"every": 0}, "every must be >= 1, got 0"),
        ({"fps": 0}, "fps must be a number > 0, got 0"),
        ({"dpi": -1}, "dpi must be a number > 0, got -1"),
        ({"grid_resolution": 1}, "grid_resolution must be a number > 1, got 1"),
        ({"panels": ["loss"]}, r"panels must name some of \['region', 'weights', 'curves'\], got \['loss'\]"),
        ({"panels": "curves"}, "panels must name some of"),
        ({"X": [1.0]}, r"X must be a matrix of finite numbers, got shape \(1,\)"),
        ({"X": [[np.nan]]}, "X must be a matrix of finite numbers"),
        ({"X": [[1.0]], "y": [1, 2]}, r"y must have 1 values as X has rows, got shape \(2,\)"),
    ],
)
def test_arguments_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        TrainingMovie(**{"path": "film.gif"} | options)


def test_what_stops_a_film_stops_the_fit_at_its_beginning(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="several outputs, and a region shows one"):
        MLPRegressor(callbacks=[TrainingMovie(tmp_path / "a.gif", X, **SMALL)]).fit(X, X)
    with pytest.raises(ValueError, match=r"y of TrainingMovie holds \['q'\], which the classes of the fit do not"):
        moons(TrainingMovie(tmp_path / "a.gif", X, ["q"] * 40))
    with pytest.raises(FileNotFoundError, match=r"nowhere.a.gif'$"):
        moons(TrainingMovie(tmp_path / "nowhere" / "a.gif"))
    with pytest.raises(ValueError, match="TrainingMovie shows one network, and this fit trains several"):
        moons(TrainingMovie(tmp_path / "a.gif"), n_ens=2)
    monkeypatch.setitem(sys.modules, "matplotlib.animation", None)
    with pytest.raises(ImportError, match=r'TrainingMovie needs matplotlib: pip install "fastmlp\[plot\]"'):
        moons(TrainingMovie(tmp_path / "a.gif"))
    assert os.listdir(tmp_path) == []


def test_without_ffmpeg_the_error_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(animation.FFMpegWriter, "isAvailable", classmethod(lambda cls: False))
    with pytest.raises(
        RuntimeError, match=r"a.mp4'\) needs ffmpeg, which is not on the PATH: install it, or write a .gif"
    ):
        moons(TrainingMovie(tmp_path / "a.mp4"))


@pytest.mark.skipif(os.name != "posix", reason="a script stands for ffmpeg")
@pytest.mark.parametrize("fails", [False, True])
def test_ffmpeg_is_given_the_frames(tmp_path, monkeypatch, fails):
    """A program in place of ffmpeg keeps what it reads: raw frames of four bytes per pixel."""
    script = tmp_path / "ffmpeg"
    end = "sys.exit(1)" if fails else "open(sys.argv[-1], 'wb').write(sys.stdin.buffer.read())"
    script.write_text(f"#!{sys.executable}\nimport sys\nif sys.argv[1:] != ['-version']: {end}\n")
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setitem(animation.mpl.rcParams, "animation.ffmpeg_path", str(script))
    path = tmp_path / "films" / "a.mp4"
    path.parent.mkdir()
    movie = TrainingMovie(path, X, y, panels=["curves"], **QUICK)
    if fails:
        with pytest.raises(Exception, match=r"ffmpeg|pipe|Broken"):
            moons(movie, max_iter=1)
        assert os.listdir(path.parent) == []
        return
    moons(movie, max_iter=1)
    width, height = 30 * 3.9, 30 * 3
    assert os.listdir(path.parent) == ["a.mp4"]
    size = len(path.read_bytes())
    assert size % (2 + 5) == 0  # two frames, and the last for a second more
    assert size / 7 / 4 == pytest.approx(width * height, rel=0.05)
