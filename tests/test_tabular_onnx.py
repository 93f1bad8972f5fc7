"""Estimators for tables as ONNX models, from the columns of a table to predictions; judged by onnxruntime."""

import json
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from scipy.special import ndtri

import fastmlp
from fastmlp.export import to_c, to_onnx
from fastmlp.preprocessing.coder import EMBEDDINGS, SCALINGS, ColumnCoder
from fastmlp.preprocessing.learned import Numeric
from fastmlp.preprocessing.statistics import Scale

from shell import invoke
from tabular_fits import KINDS, small, table, targets_of
from tiers import each_value_once

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from fastmlp.export.onnx_columns import ML_DOMAIN, Columns, _ndtri, matrix_nodes  # noqa: E402
from fastmlp.export.onnx_nodes import MIN_OPSET, Nodes  # noqa: E402
from fastmlp.export.tables import inputs_of  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

FRAME, VALUES = table()
TYPES = {"tensor(double)": np.float64, "tensor(float)": np.float32, "tensor(int64)": np.int64}


def session_of(model):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model.SerializeToString(), options)


def feeds(session, X):
    """Return the inputs for a frame as the documentation says, or for an array."""
    if not isinstance(X, pd.DataFrame):
        inputs = session.get_inputs()
        if len(inputs) == 1:
            return {inputs[0].name: X.astype(TYPES[inputs[0].type])}
        X = pd.DataFrame({each.name: X[:, i] for i, each in enumerate(inputs)})
    found = {}
    for each in session.get_inputs():
        column = X[[each.name]]
        if each.type == "tensor(string)":
            found[each.name] = column.astype(object).where(column.notna(), "").to_numpy()
        else:
            found[each.name] = column.to_numpy(TYPES[each.type])
    return found


def check(estimator, X, model=None, scale=1.0):
    """Compare all outputs with the estimator's, within rounding of the dtype."""
    session = session_of(to_onnx(estimator) if model is None else model)
    found = session.run(None, feeds(session, X))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that an array has no names
        expected = getattr(estimator, "predict_proba", estimator.predict)(X)
        labels = estimator.predict(X)
    expected = expected.reshape(len(X), -1)
    tolerance = 2e-5 if found[-1].dtype == np.float32 else 1e-11
    largest = max(1.0, np.abs(expected).max())
    np.testing.assert_allclose(found[-1], expected, rtol=tolerance * scale, atol=tolerance * largest * scale)
    if len(found) == 2:
        assert (found[0] == labels).mean() > 0.98  # rounding decides ties
    return session


def strange(n=120):
    """Return rows that training did not see: other categories, gaps, numbers far away."""
    frame, _ = table(n, seed=9)
    frame.loc[:10, "colour"] = "violet"
    frame.loc[5:15, "size"] = np.nan
    frame.loc[20:25, "size"] = [1e9, -1e9, 1e120, -1e149, 5e-324, 0.0]
    frame["town"] = frame["town"].astype(object)
    frame.loc[30:40, "town"] = None
    frame.loc[41, "town"] = "nowhere"
    return frame


CASES = {
    **{name: (name, {}) for name in KINDS},
    "td-s": ("RealMLPClassifier", {"preset": "td-s"}),
    "clamped": ("TabMRegressor", {"clamp_output": True}),
    "mini": ("TabMClassifier", {"arch_type": "tabm-mini"}),
    "no numbers embedded": ("TabMRegressor", {"num_emb_type": "none"}),
    "shallow": ("TabMClassifier", {"hidden_layer_sizes": (9,)}),
    "activations": ("TabMRegressor", {"activation": ["prelu", ("elu", {"alpha": 0.5})]}),
    "mish": ("RealMLPClassifier", {"activation": "mish", "use_parametric_act": True}),
    "networks": ("TabMClassifier", {"n_ens": 2}),
    "folds of networks": ("RealMLPRegressor", {"n_cv": 2, "n_ens": 2}),
    "folds": ("TabMRegressor", {"n_cv": 2}),
}


@each_value_once
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", CASES)
def test_predictions_of_a_table_are_the_estimators(case, dtype):
    name, parameters = CASES[case]
    estimator = small(name, dtype=dtype, **parameters).fit(FRAME, targets_of(name, VALUES))
    model = to_onnx(estimator)
    for X in (FRAME, strange(), FRAME[:1], FRAME[:0]):
        if len(X):
            check(estimator, X, model)
        else:
            session = session_of(model)
            assert [len(out) for out in session.run(None, feeds(session, X))] == [0] * len(session.get_outputs())


@pytest.mark.parametrize(
    "name, parameters, y",
    [
        ("RealMLPClassifier", {}, np.c_[VALUES > 0, VALUES > 1].astype(int)),
        ("TabMClassifier", {}, VALUES > 1),
        ("TabMClassifier", {}, np.where(VALUES > 0, -5, 7)),
        ("RealMLPClassifier", {}, np.zeros(120, int)),
        ("RealMLPRegressor", {}, np.c_[VALUES * 1e3, VALUES - 1e3]),
        ("TabMRegressor", {"loss": "poisson"}, np.abs(VALUES)),
        ("RealMLPRegressor", {"loss": ("quantile", {"quantile": 0.2}), "n_ens": 2}, VALUES),
    ],
)
def test_every_task(name, parameters, y):
    check(small(name, **parameters).fit(FRAME, y), strange())


@pytest.mark.parametrize("name", ["RealMLPClassifier", "TabMRegressor"])
def test_every_operator_set_and_dtype_predicts_the_same(name, tmp_path):
    estimator = small(name).fit(FRAME, targets_of(name, VALUES))
    for opset in (MIN_OPSET, 18, onnx.defs.onnx_opset_version() - 1):
        check(estimator, FRAME, estimator.to_onnx(tmp_path / "model.onnx", opset=opset))
        assert onnx.load(tmp_path / "model.onnx").opset_import[0].version == opset
    for dtype, kind in (("float64", "double"), ("float32", "float")):
        session = check(
            estimator, FRAME.round(1), to_onnx(estimator, dtype=dtype), scale=1e7 if kind == "double" else 5
        )
        assert {each.type for each in session.get_inputs()} == {f"tensor({kind})", "tensor(string)"}
        assert session.get_outputs()[-1].type == f"tensor({kind})"


def test_formulas_are_exported():
    @fastmlp.activation
    def swell(z):
        return z * z / (1 + abs(z))

    check(small("RealMLPClassifier", activation=swell).fit(FRAME, VALUES > 0), FRAME)


# --- inputs -----------------------------------------------------------------------------------------------------------


def _described(session):
    return {each.name: (each.type, each.shape) for each in session.get_inputs()}


def test_a_frame_has_an_input_per_column():
    estimator = small("RealMLPRegressor").fit(FRAME, VALUES)
    number, text = ("tensor(double)", ["N", 1]), ("tensor(string)", ["N", 1])
    expected = {"size": number, "age": number, "open": number, "colour": text, "town": text}
    model = to_onnx(estimator)
    assert _described(session_of(model)) == expected
    properties = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(properties["feature_names"]) == list(FRAME)
    assert json.loads(properties["widths"]) == [5, 12, 8, 1] and properties["task"] == "regression"


def test_an_array_of_numbers_is_one_input():
    rng = np.random.default_rng(3)
    X = np.c_[
        rng.normal(size=120), np.where(rng.random(120) < 0.1, np.nan, rng.integers(0, 12, 120)), rng.normal(size=120)
    ]
    for parameters in ({}, {"categorical_features": [1]}, {"categorical_features": [1], "n_cv": 2}):
        for name in ("RealMLPClassifier", "TabMClassifier"):
            estimator = small(name, **parameters).fit(X, VALUES > 0)
            unseen = np.r_[X, [[0.0, 99.0, np.nan]]]
            assert _described(check(estimator, unseen)) == {"X": ("tensor(double)", ["N", 3])}


def test_an_array_of_objects_has_an_input_per_column():
    X = FRAME.astype(object).to_numpy()
    estimator = small("TabMClassifier").fit(X, VALUES > 0)
    assert list(_described(check(estimator, X))) == ["x0", "x1", "x2", "x3", "x4"]


def test_whole_numbers_may_be_categories():
    frame = pd.DataFrame(
        {
            "month": pd.Categorical(np.arange(120) % 12),
            "flag": pd.Categorical(np.arange(120) % 7 < 3),
            "grade": pd.Categorical(np.arange(120) % 5 / 2),
            "x": VALUES,
        }
    )
    for name in ("RealMLPClassifier", "TabMClassifier"):
        estimator = small(name).fit(frame, VALUES > 0)
        unseen = frame.assign(month=frame["month"].astype(int) * 2, grade=frame["grade"].astype(float) + 1)
        unseen["month"] = unseen["month"].astype("category")
        unseen["grade"] = unseen["grade"].astype("category")
        found = _described(check(estimator, unseen))
        assert [kind for kind, _ in found.values()] == [
            "tensor(int64)",
            "tensor(int64)",
            "tensor(double)",
            "tensor(double)",
        ]


@pytest.mark.parametrize(
    "names", [["label", "probabilities", "X", "Concat", "X_2"], ["é", "a b", "constant", "0", "\n"]]
)
def test_columns_may_have_any_names(names):
    frame = FRAME.set_axis(names, axis=1)
    session = check(small("RealMLPClassifier").fit(frame, VALUES > 0), frame)
    assert [each.name for each in session.get_inputs()] == names
    outputs = [each.name for each in session.get_outputs()]
    assert outputs == [f"{name}_" if name in names else name for name in ("label", "probabilities")]


@pytest.mark.parametrize(
    "X, message",
    [
        (FRAME.rename(columns={"size": ""}), "column 0 of the table has the name ''"),
        (np.array([["\ud800"], ["b"], ["c"]] * 40, object), r"the category '\\ud800' is no text in UTF-8"),
    ],
)
def test_what_is_no_input_is_refused(X, message):
    estimator = small("RealMLPClassifier", max_iter=1).fit(X, VALUES > 0)
    with pytest.raises(ValueError, match=message):
        to_onnx(estimator)


def test_a_name_that_comes_twice_is_refused():
    coder = ColumnCoder.of_columns([Numeric(0.0), Numeric(0.0)], ["a", "a"], scaling=None)
    with pytest.raises(ValueError, match="column 1 of the table has the name 'a'"):
        inputs_of([coder])


def test_other_exports_are_refused_by_name():
    estimator = small("TabMClassifier", max_iter=1).fit(FRAME, VALUES > 0)
    with pytest.raises(TypeError, match=r"to_c takes MLPClassifier and MLPRegressor, got TabMClassifier: .* to_onnx"):
        to_c(estimator)
    with pytest.raises(ValueError, match="dtype must be 'float32', 'float64' or None, got 'int8'"):
        to_onnx(estimator, dtype="int8")
    with pytest.raises(ValueError, match="opset must be an int from 13"):
        to_onnx(estimator, opset=12)
    with pytest.raises(ValueError, match="not fitted"):
        to_onnx(small("TabMClassifier"))


# --- the coder alone --------------------------------------------------------------------------------------------------


def coded(coder, X):
    """Return the matrix that onnxruntime makes of a table."""
    inputs = inputs_of([coder])
    nodes = Nodes(np.float64, MIN_OPSET)
    types = {"number": onnx.TensorProto.DOUBLE, "int": onnx.TensorProto.INT64, "text": onnx.TensorProto.STRING}
    nodes.reserve(each.name for each in inputs)
    out = matrix_nodes(nodes, coder, Columns(nodes, inputs))
    info = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        nodes.nodes,
        "coder",
        [info(each.name, types[each.kind], ["N", len(each.columns)]) for each in inputs],
        [info(out, onnx.TensorProto.DOUBLE, ["N", coder.n_columns])],
        nodes.constants,
    )
    opsets = [onnx.helper.make_opsetid("", MIN_OPSET), onnx.helper.make_opsetid(ML_DOMAIN, 2)]
    model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8)
    session = session_of(model)
    return session.run(None, feeds(session, X))[0]


@st.composite
def tables(draw):
    """Return training rows and others, of few different numbers, so that many are equal, and gaps."""
    n, n_columns = draw(st.integers(1, 40)), draw(st.integers(1, 4))
    numbers = draw(
        st.sampled_from([[0.0, 1.0], [1.5, 2.0, np.nan], [1e12, 1e12 + 1, -3.0], [-1e120, 0.1, 1e9, np.nan], [7.0]])
    )
    X = draw(
        st.lists(st.lists(st.sampled_from(numbers), min_size=n_columns, max_size=n_columns), min_size=n, max_size=n)
    )
    more = draw(st.lists(st.floats(-1e20, 1e20), min_size=n_columns, max_size=n_columns))
    return np.array(X), np.r_[X, [more], [[0.05] * n_columns]]


@settings(max_examples=40, deadline=None)
@example((np.array([[np.nan]]), np.array([[np.nan], [1.0]])), None, None, [0], None)  # nothing tells what it is
@given(
    tables(),
    st.sampled_from(SCALINGS),
    st.sampled_from([*EMBEDDINGS]),
    st.sampled_from([None, [0]]),
    st.sampled_from([None, 1, 3]),
)
def test_the_matrix_is_the_coders(drawn, scaling, embedding, categorical, limit):
    X, others = drawn
    coder = ColumnCoder(
        categorical_features=categorical, scaling=scaling, numeric_embedding=embedding, one_hot_limit=limit, n_bins=5
    ).fit(X, random_state=0)
    assume(all(np.isfinite(getattr(column, "bins", ())).all() for column in coder.columns))  # beyond float32
    # knots may be as near as float32's neighbours: a place among them is a rounding error over their distance
    tolerance = 1e-15 / np.finfo(np.float32).eps * 5 if embedding == "piecewise" else 1e-9
    found, expected = coded(coder, others), coder.transform(others, np.float64)
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    "quantiles",
    [[0.0, 1.0], [0.0, 0.0, 0.0, 1.0, 2.0, 2.0], [1.0, 1.0, 1.0], [5.0, 6.0, 6.0, 7.0, 8.0], np.sort(np.r_[0:3:1000j])],
)
def test_numbers_among_quantiles_that_are_equal(quantiles):
    quantiles = tuple(map(float, quantiles))
    columns = [Numeric(quantiles[0], Scale(0.0, 1.0), None, quantiles), Numeric(0.5, Scale(0.0, 1.0), None, (0.0, 3.0))]
    coder = ColumnCoder.of_columns(columns, None, scaling="quantile_normal", categorical_features=None)
    near = np.unique(
        np.r_[quantiles, np.add(quantiles, 1e-9), np.subtract(quantiles, 1e-9), np.add(quantiles, 0.3), 99.0, -99.0]
    )
    X = np.c_[near, np.linspace(-1, 4, len(near))]
    np.testing.assert_allclose(coded(coder, X), coder.transform(X, np.float64), rtol=1e-9, atol=1e-9)


def test_the_normal_quantile_is_scipys():
    p = np.r_[0.0, 1e-12, 1e-7, np.linspace(0, 1, 10001), 0.0749999, 0.925001, 1 - 1e-7, 1.0]
    nodes = Nodes(np.float64, MIN_OPSET)
    info = onnx.helper.make_tensor_value_info
    out = _ndtri(nodes, "p")
    graph = onnx.helper.make_graph(
        nodes.nodes,
        "ndtri",
        [info("p", onnx.TensorProto.DOUBLE, ["N"])],
        [info(out, onnx.TensorProto.DOUBLE, ["N"])],
        nodes.constants,
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", MIN_OPSET)], ir_version=8)
    (found,) = session_of(model).run(None, {"p": p})
    np.testing.assert_allclose(
        found, ndtri(np.clip(p, 1e-7, 1 - 1e-7)), rtol=1e-7, atol=0
    )  # the ends are a bit further
    inside = (p > 1e-7) & (p < 1 - 1e-7)
    np.testing.assert_allclose(found[inside], ndtri(p[inside]), rtol=1e-13, atol=1e-15)


@each_value_once
@pytest.mark.parametrize("model", ["realmlp", "tabm"])
@pytest.mark.parametrize("folds", [1, 2])
def test_the_command_exports_a_graph_of_the_columns_of_the_data(tmp_path, model, folds):
    pytest.importorskip("pyarrow")
    data, path, net, report = (tmp_path / name for name in ("d.csv", "m.safetensors", "m.onnx", "r.json"))
    frame = FRAME.assign(open=FRAME["open"].astype(str).str.lower(), y=targets_of("TabMClassifier", VALUES))
    frame.to_csv(data, index=False)
    options = ["--max-iter", "3", "--hidden", "8", "--random-state", "0", "-q"]
    options += ["--n-cv", "2", "--valid", "0"] if folds > 1 else []
    invoke("train", data, "--target", "y", "--model", model, "-o", path, *options)
    listed = invoke("export", path, "--onnx", net, "--json", report)
    assert "colour" in listed.output and "the text" in listed.output
    names = [(each["name"], each["if_missing"]) for each in json.loads(report.read_text())["inputs"]]
    assert names == [("size", "NaN"), ("age", "NaN"), ("open", "NaN")] + [
        (name, "any that is no category") for name in ("colour", "town")
    ]
    rows = strange()
    rows["size"] = rows["size"].clip(-1e30, 1e30)
    rows.assign(open=rows["open"].astype(str).str.lower()).to_csv(data, index=False)
    invoke("predict", path, data, "--proba", "-o", tmp_path / "p.csv", "-q")
    expected = pd.read_csv(tmp_path / "p.csv")
    session = session_of(onnx.load(net))
    labels, probabilities = session.run(None, feeds(session, rows))
    assert labels.tolist() == expected["y"].tolist()
    np.testing.assert_allclose(probabilities, expected.drop(columns="y"), atol=2e-5)


def test_columns_without_anything_to_learn():
    frame = pd.DataFrame({"same": np.ones(30), "empty": np.full(30, np.nan), "nothing": pd.Categorical([None] * 30)})
    for name in ("RealMLPClassifier", "TabMClassifier"):
        estimator = small(name).fit(frame, np.arange(30) % 2)
        check(estimator, frame)
        check(estimator, frame.assign(same=np.arange(30.0), nothing=pd.Categorical(["a"] * 30)))
