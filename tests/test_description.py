"""Summaries, and what estimators look like in a terminal and a notebook."""

import copy
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import neural_network
from sklearn.datasets import load_iris
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import estimator_html_repr

import fastmlp
from fastmlp import MLPClassifier, MLPRegressor
from fastmlp.model.stages import UNIT_ATTRIBUTES

from tabular_fits import KINDS, small, table, targets_of

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X, y = load_iris(return_X_y=True)


@fastmlp.activation
def swish(z):
    return z / (1 + exp(-z))  # noqa: F821


def arrays(estimator):
    """Every fitted array, by attribute."""
    names = ["coefs_", "intercepts_", *UNIT_ATTRIBUTES.values()]
    return {name: [a for a in getattr(estimator, name, []) if a is not None] for name in names}


def judge(estimator, summary):
    """The numbers of a summary against the arrays and a count of the products that a row takes."""
    of_kind = {name: sum(a.size for a in found) for name, found in arrays(estimator).items()}
    assert summary.n_params == sum(of_kind.values())
    assert summary.n_trained == summary.n_params - of_kind["bn_means_"] - of_kind["bn_vars_"]
    assert summary.memory == sum(a.nbytes for found in arrays(estimator).values() for a in found)
    assert summary.training_memory == 3 * summary.memory
    row = np.ones((1, estimator.coefs_[0].shape[0]))
    operations = 0
    for W in estimator.coefs_:
        for _ in range(W.shape[1]):
            operations += 2 * row.shape[1]  # a product and a sum per weight of the unit
        row = np.ones((1, W.shape[1]))
    assert summary.flops == operations
    # weight gradients take as many; deltas too, but for the features, which need none
    assert summary.training_flops == 2 * operations + operations - 2 * estimator.coefs_[0].size
    assert [(layer.fan_in, layer.fan_out) for layer in summary.layers] == [W.shape for W in estimator.coefs_]


def test_a_small_network():
    clf = MLPClassifier((5, 5), max_iter=1).fit(X, y)
    summary = clf.summary()
    assert summary.n_params == 73
    assert [layer.n_params for layer in summary.layers] == [25, 30, 18]
    assert [layer.name for layer in summary.layers] == ["hidden 1", "hidden 2", "output"]
    assert [layer.activation for layer in summary.layers] == ["relu", "relu", "softmax"]
    judge(clf, summary)


@settings(max_examples=15, deadline=None)
@given(
    hidden=st.lists(st.integers(1, 9), max_size=3),
    batch_norm=st.booleans(),
    dropout=st.sampled_from([0.0, 0.5]),
    activation=st.sampled_from(["relu", "prelu", ("elu", {"alpha": 0.5}), swish]),
    dtype=st.sampled_from([np.float32, np.float64]),
    regression=st.booleans(),
)
def test_numbers_are_those_of_the_arrays(hidden, batch_norm, dropout, activation, dtype, regression):
    options = {"batch_norm": batch_norm, "dropout": dropout, "activation": activation, "max_iter": 1}
    estimator = (MLPRegressor if regression else MLPClassifier)(hidden_layer_sizes=hidden, **options)
    estimator.fit(X.astype(dtype), y)
    summary = fastmlp.summary(estimator)
    judge(estimator, summary)
    text = str(summary)
    assert f"{summary.n_params:,} parameters" in text and np.dtype(dtype).name in text.splitlines()[0]
    assert all(not line.endswith(" ") and line.isascii() for line in text.splitlines())


def test_options_are_named():
    clf = MLPClassifier(
        (5, 4, 3),
        ["prelu", ("elu", {"alpha": 0.5}), swish],
        dropout=[0.1, 0, 0.25],
        input_dropout=0.2,
        batch_norm=[True, "after", False],
        max_iter=1,
    )
    words = [layer.activation for layer in clf.fit(X, y).summary().layers]
    assert words == [
        "prelu, batch_norm, dropout 0.1, input_dropout 0.2",
        "elu(alpha=0.5), batch_norm after",
        "swish, dropout 0.25",
        "softmax",
    ]
    assert "learned and 18 running statistics" in str(clf.summary())


class Cells(HTMLParser):
    """The rows of a table as lists of texts."""

    def __init__(self, text):
        super().__init__()
        self.rows, self.open = [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        if tag == "br":
            return
        self.open.append(tag)
        if tag == "tr":
            self.rows.append([])

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1].append(data)


def test_notebooks_show_the_same_table():
    summary = MLPClassifier((12, 300), swish, max_iter=1).fit(X, y).summary()
    lines = [line for line in str(summary).splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert Cells(summary._repr_html_()).rows == cells
    assert repr(summary) == str(summary)


def test_text_does_not_depend_on_where_it_is_made(monkeypatch):
    summary = MLPClassifier((5,), max_iter=1).fit(X, y).summary()
    text = str(summary)
    monkeypatch.setenv("COLUMNS", "10")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    assert str(summary) == text


def test_pipelines_and_searches():
    clf = MLPClassifier((5,), max_iter=1)
    pipeline = make_pipeline(StandardScaler(), clf).fit(X, y)
    search = GridSearchCV(pipeline, {"mlpclassifier__alpha": [0.1]}, cv=2).fit(X, y)
    assert fastmlp.summary(pipeline).n_params == fastmlp.summary(search).n_params == 4 * 5 + 5 + 5 * 3 + 3


def test_weights_set_by_hand():
    clf = copy.deepcopy(MLPClassifier((5,), max_iter=1).fit(X, y))
    clf.coefs_ = [np.zeros((4, 2)), np.zeros((2, 3))]
    clf.intercepts_ = [np.zeros(2), np.zeros(3)]
    assert clf.summary().n_params == 8 + 2 + 6 + 3


def test_what_has_no_summary():
    with pytest.raises(NotFittedError):
        fastmlp.summary(MLPClassifier())
    with pytest.raises(NotFittedError):
        fastmlp.summary(make_pipeline(StandardScaler(), MLPRegressor()))
    for wrong in (neural_network.MLPClassifier(), Ridge(), 3):
        with pytest.raises(TypeError, match="from_sklearn"):
            fastmlp.summary(wrong)


# --- the estimators themselves ----------------------------------------------------------------------------------------


def test_repr_shows_what_was_changed():
    assert repr(MLPClassifier()) == "MLPClassifier()"
    clf = MLPClassifier((5,), swish, dropout=0.5, learning_rate=("step", {"gamma": 0.5}))
    shown = set(re.findall(r"(\w+)=", repr(clf)))
    assert shown == {"hidden_layer_sizes", "activation", "dropout", "learning_rate"}


@pytest.mark.parametrize("fitted", [False, True])
@pytest.mark.parametrize("cls", [MLPClassifier, MLPRegressor])
def test_notebooks_show_estimators(cls, fitted):
    estimator = cls(hidden_layer_sizes=(5,), activation=swish, max_iter=1)
    if fitted:
        estimator.fit(X, y)
    for shown in (estimator, make_pipeline(StandardScaler(), estimator)):
        html = estimator_html_repr(shown)
        assert "hidden_layer_sizes" in html and "swish" in html
    # scikit-learn's site does not know this class
    assert not re.search(r'href="[^"]*scikit-learn', estimator_html_repr(estimator))
    assert estimator._repr_html_().startswith("<style>")


def test_a_summary_of_an_estimator_for_tables_adds_up():
    frame, values = table()
    for name in KINDS:
        estimator = small(name).fit(frame, targets_of(name, values))
        found, network = fastmlp.summary(estimator), estimator.network_
        assert found.n_params == found.n_trained == network.n_params
        assert [layer.activation for layer in found.layers[: len(network.inputs)]] == [b.kind for b in network.inputs]
        assert found.flops == 2 * network.members * sum(a * b for a, b in network.shapes)
        shown = str(estimator.summary())
        assert f"{name} {network.widths[0]}-12-8-{network.widths[-1]}, float32" in shown
        assert ("3 members" in shown) == name.startswith("TabM")
        assert "dropout" in shown
