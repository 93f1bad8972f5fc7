"""fastmlp.datasets: shapes, geometry and noise of what the makers return; the table of wines without a network."""

import gzip
import hashlib
import io
import json
import urllib.request
from email.message import Message
from urllib.error import URLError

import numpy as np
import pytest
from scipy import stats
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LinearRegression
from sklearn.neighbors import KNeighborsClassifier

from fastmlp import datasets
from fastmlp.datasets import fetch_wine_quality, make_qwerties, make_regression_line, make_rings, make_spirals

MAKERS = [make_qwerties, make_rings, make_spirals]
EVERY_MAKER = [*MAKERS, make_regression_line]


def test_all_are_public_and_their_module_loads_late():
    import fastmlp

    assert fastmlp.datasets is datasets
    assert set(datasets.__all__) == {maker.__name__ for maker in EVERY_MAKER} | {"fetch_wine_quality"}


@pytest.mark.parametrize("maker", EVERY_MAKER)
def test_random_state_decides_everything(maker):
    first, again, other = (maker(50, noise=0.3, random_state=seed) for seed in (3, np.random.RandomState(3), 4))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0], other[0])
    assert first[0].dtype == np.float64 and first[0].flags.c_contiguous


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize("n_classes", [2, 3])
def test_rows_are_shared_among_classes(maker, n_classes):
    X, y = maker(50, n_classes=n_classes, random_state=0)
    assert X.shape == (50, 2) and y.shape == (50,) and y.dtype == np.intp
    counts = np.bincount(y, minlength=n_classes)
    assert counts.sum() == 50 and counts.max() - counts.min() <= 1
    assert np.count_nonzero(np.diff(y)) > n_classes  # shuffled
    given = [7, 0, 2][:n_classes]
    X, y = maker(given, n_classes=n_classes, shuffle=False, random_state=0)
    assert y.tolist() == [label for label, n in enumerate(given) for _ in range(n)] and len(X) == sum(given)


@pytest.mark.parametrize("maker", MAKERS)
def test_noise_is_a_standard_deviation_around_the_same_points(maker):
    exact, y = maker(4000, noise=None, random_state=5)
    noisy, y_again = maker(4000, noise=0.25, random_state=5)
    assert np.array_equal(y, y_again)
    assert stats.kstest((noisy - exact).ravel(), "norm", args=(0, 0.25)).pvalue > 0.01


def test_qwerties_are_as_separable_as_documented():
    X, y = make_qwerties(20_000, class_sep=1.0, noise=0.8, random_state=1)
    best = stats.norm.cdf(1.0 / 0.8)
    assert LinearDiscriminantAnalysis().fit(X, y).score(X, y) == pytest.approx(best, abs=4 / np.sqrt(len(X)))
    centres, _ = make_qwerties(3, n_classes=3, class_sep=2.0, noise=0, shuffle=False)
    np.testing.assert_allclose(np.linalg.norm(centres, axis=1), 2.0)
    np.testing.assert_allclose(centres.sum(axis=0), 0.0, atol=1e-15)
    np.testing.assert_allclose(centres[0], np.sqrt(2.0))


def test_rings_have_their_radii():
    X, y = make_rings(90, n_classes=3)
    np.testing.assert_allclose(np.hypot(*X.T), (y + 1) / 3)
    np.testing.assert_allclose(X[y == 1].mean(axis=0), 0.0, atol=1e-15)


def test_spirals_are_those_of_the_playground():
    n = 50
    X, y = make_spirals(2 * n, shuffle=False)
    share = np.arange(1, n + 1) / n
    for label, delta in enumerate((0.0, np.pi)):  # its r = i / n, t = 1.75 i / n 2 pi + delta; ours has x and y swapped
        t = 1.75 * share * 2 * np.pi + delta
        np.testing.assert_allclose(X[y == label][:, ::-1], np.column_stack([share * np.sin(t), share * np.cos(t)]))
    np.testing.assert_allclose(make_spirals(2 * n, n_turns=-1.75, shuffle=False)[0], X * [1, -1], atol=1e-14)


@pytest.mark.parametrize("maker", [make_rings, make_spirals])
def test_no_line_separates_them_but_neighbours_do(maker):
    X, y = maker(400, noise=0.02, random_state=0)
    assert LinearDiscriminantAnalysis().fit(X, y).score(X, y) < 0.75
    assert KNeighborsClassifier(3).fit(X[::2], y[::2]).score(X[1::2], y[1::2]) > 0.95


def test_line():
    X, y = make_regression_line(5000, slope=-2.0, intercept=3.0, noise=0.5, random_state=0)
    line = LinearRegression().fit(X, y)
    assert X.shape == (5000, 1) and y.shape == (5000,)
    assert [line.coef_[0], line.intercept_] == pytest.approx([-2.0, 3.0], abs=0.05)
    assert np.std(y - line.predict(X)) == pytest.approx(0.5, rel=0.05)
    assert -1 <= X.min() < -0.99 and 0.99 < X.max() < 1
    X, y = make_regression_line(10, slope=4, intercept=1, noise=None)
    np.testing.assert_array_equal(y, 4 * X[:, 0] + 1)


@pytest.mark.parametrize(
    ("maker", "arguments", "message"),
    [
        (make_rings, {"n_samples": 0}, "'n_samples' parameter of make_rings must be an int in the range"),
        (make_rings, {"n_samples": 2.5}, "n_samples"),
        (make_rings, {"n_samples": [3]}, r"for each of the 2 classes, got \[3\]"),
        (make_rings, {"n_samples": [3, -1]}, r"for each of the 2 classes, got \[3, -1\]"),
        (make_rings, {"n_samples": [0, 0]}, "n_samples must be an int"),
        (make_rings, {"n_classes": 0}, "'n_classes' parameter of make_rings"),
        (make_qwerties, {"n_classes": 4}, "n_classes of make_qwerties must be 2 or 3, got 4; make_blobs"),
        (make_qwerties, {"class_sep": -1}, "class_sep"),
        (make_spirals, {"noise": -0.1}, "'noise' parameter of make_spirals must be a float in the range"),
        (make_spirals, {"noise": np.nan}, "noise"),
        (make_spirals, {"n_turns": np.inf}, "n_turns"),
        (make_spirals, {"random_state": "1"}, "random_state"),
        (make_spirals, {"shuffle": "yes"}, "shuffle"),
        (make_regression_line, {"n_samples": [10]}, r"n_samples of make_regression_line must be an int, got \[10\]"),
        (make_regression_line, {"slope": "1"}, "'slope' parameter of make_regression_line"),
        (fetch_wine_quality, {"as_frame": 2}, "as_frame"),
        (fetch_wine_quality, {"data_home": 3}, "data_home"),
    ],
)
def test_wrong_arguments_are_named(maker, arguments, message):
    with pytest.raises(ValueError, match=message):
        maker(**arguments)


# --- the table of wines -----------------------------------------------------------------------------------------------

NAMES = [
    *("fixed.acidity", "volatile.acidity", "citric.acid", "residual.sugar", "chlorides", "free.sulfur.dioxide"),
    *("total.sulfur.dioxide", "density", "pH", "sulphates", "alcohol", "quality"),
]


class OpenML(urllib.request.HTTPSHandler, urllib.request.HTTPHandler):
    """Answers of the server for a table of these rows; without a table there is no network."""

    def __init__(self, rows=None):
        super().__init__()
        self.rows, self.asked = rows, []

    def https_open(self, request):
        self.asked.append(request.full_url)
        if self.rows is None:
            raise URLError("no network here")
        answer = Message()
        answer["Content-Encoding"] = "gzip"
        body = io.BytesIO(gzip.compress(self._answer(request.full_url).encode()))
        reply = urllib.request.addinfourl(body, answer, request.full_url, 200)
        reply.msg = "OK"
        return reply

    http_open = https_open

    def _answer(self, url):
        if "/data/features/" in url:
            features = [
                {"index": str(i), "name": name, "data_type": "numeric", "is_target": str(name == "quality").lower()}
                | {"is_ignore": "false", "is_row_identifier": "false", "number_of_missing_values": "0"}
                for i, name in enumerate(NAMES)
            ]
            return json.dumps({"data_features": {"feature": features}})
        if "/data/qualities/" in url:
            return json.dumps({"data_qualities": {"quality": [{"name": "NumberOfInstances", "value": "6497"}]}})
        if "/api/v1/json/data/287" in url:
            told = {"id": "287", "name": "wine_quality", "version": "1", "format": "ARFF", "status": "active"}
            told |= {"url": "https://www.openml.org/data/v1/download/3619/wine.arff", "file_id": "3619"}
            told |= {"md5_checksum": hashlib.md5(self._table().encode()).hexdigest()}
            return json.dumps({"data_set_description": told | {"default_target_attribute": "quality"}})
        return self._table()

    def _table(self):
        header = "\n".join(["@relation wine", *(f"@attribute {name} real" for name in NAMES), "@data"])
        return header + "\n" + "\n".join(",".join(map(repr, row)) for row in self.rows.tolist()) + "\n"


@pytest.fixture
def openml():
    """Let all requests go to a stand-in of the server."""

    def install(rows=None):
        server = OpenML(rows)
        urllib.request.install_opener(urllib.request.build_opener(server))
        return server

    yield install
    urllib.request.install_opener(None)


@pytest.fixture(scope="module")
def wines():
    rng = np.random.RandomState(0)
    return np.column_stack([rng.uniform(0, 20, (6497, 11)).round(3), rng.randint(3, 10, 6497)])


@pytest.mark.filterwarnings("ignore:Multiple active versions")
def test_wines_are_fetched_once(openml, wines, tmp_path):
    pytest.importorskip("pandas")
    server = openml(wines)
    X, y = fetch_wine_quality(data_home=tmp_path)
    assert server.asked and y.dtype == np.int64
    np.testing.assert_array_equal(np.column_stack([X, y]), wines)

    without = openml()  # what was kept needs no network
    frame, grades = fetch_wine_quality(data_home=str(tmp_path), as_frame=True)
    assert not without.asked
    assert [*frame.columns, grades.name] == NAMES
    np.testing.assert_array_equal(np.column_stack([frame, grades]), wines)


@pytest.mark.filterwarnings("ignore:A network error occurred")
def test_without_a_network_the_error_says_what_to_do(openml, tmp_path, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    openml()
    with pytest.raises(
        ConnectionError, match=r"no network here.*fetch_wine_quality\(\) once.*data_home.*read_csv"
    ) as e:
        fetch_wine_quality(data_home=tmp_path)
    assert str(tmp_path) in str(e.value)


def test_another_table_is_refused(openml, wines, tmp_path):
    changed = wines.copy()
    changed[7, -1] = 11
    openml(changed)
    with pytest.raises(ValueError, match=r"should have the shape \(6497, 11\) and grades from 0 to 10, got .* 11"):
        fetch_wine_quality(data_home=tmp_path)
