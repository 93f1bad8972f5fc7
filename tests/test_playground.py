"""The playground without its page: data, settings, sessions, programs, messages, and the server."""

import contextlib
import http.client
import json
import math
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from fastmlp import MLPClassifier, MLPRegressor
from fastmlp.estimator.parameters import HIDDEN_ACTIVATIONS
from fastmlp.playground import make_data, read_table, settings
from fastmlp.playground.conversation import MOST_EPOCHS, Conversation
from fastmlp.playground.data import DATA_SETS, EXTENT, FEATURES
from fastmlp.playground.frames import packed, unpacked
from fastmlp.playground.session import Session
from fastmlp.playground.settings import DEFAULTS, FIELDS, TABLE, Choice, SettingsError
from fastmlp.tabular.errors import DataError
from fastmlp.training.optimizers import SOLVERS
from fastmlp.training.schedules import SCHEDULES

from playground_server import served
from shell import command, refused

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

SMALL = {**DEFAULTS, "n_samples": 60, "hidden_layer_sizes": (3,)}


@pytest.fixture
def csv(tmp_path):
    path = tmp_path / "points.csv"
    random = np.random.RandomState(0)
    rows = ["width,height,area,kind"]
    for i, (a, b) in enumerate(random.randn(80, 2)):
        rows.append(f"{a:.3f},{b:.3f},{i},{'in' if a * a + b * b < 1 else 'out'}")
    path.write_text("\n".join(rows), encoding="utf-8")
    return path


# --- data -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DATA_SETS)
def test_data_sets_repeat_and_fit_the_map(name):
    X_train, X_test, y_train, y_test = make_data(name, n_samples=200, noise=0.0, train_share=0.25, random_state=3)
    assert X_train.shape == (50, 2) and X_test.shape == (150, 2)
    again = make_data(name, n_samples=200, noise=0.0, train_share=0.25, random_state=3)
    np.testing.assert_array_equal(X_train, again[0])
    assert np.abs(X_train).max() < EXTENT
    y = np.concatenate([y_train, y_test])
    if DATA_SETS[name].task == "classification":
        counts = np.bincount(y)
        assert len(counts) >= 2 and counts.min() > 200 / len(counts) / 2
    else:
        assert y.std() > 0.1 and np.abs(y).max() <= 1.1
    noisy = make_data(name, n_samples=200, noise=0.3, train_share=0.25, random_state=3)
    moved = 2 if DATA_SETS[name].task == "regression" else 0  # the values, or the points
    assert not np.array_equal(again[moved], noisy[moved])


def test_features_are_what_their_names_say():
    points = make_data("xor", n_samples=30)[0]
    x1, x2 = points.T
    expected = [x1, x2, x1**2, x2**2, x1 * x2, np.sin(2 * x1), np.sin(2 * x2)]
    found = make_data("xor", n_samples=30, features=tuple(FEATURES))[0]
    np.testing.assert_array_equal(found, np.column_stack(expected))


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"dataset": "ring"}, "dataset must be one of circle, xor"),
        ({"features": ()}, "features must be some of x1, x2"),
        ({"features": "x1"}, "features must be some of"),
        ({"features": ["x3"]}, "features must be some of"),
        ({"n_samples": 1}, "n_samples must be at least 2, got 1"),
        ({"noise": -0.1}, "noise must be 0 or more"),
        ({"noise": math.nan}, "noise must be 0 or more"),
        ({"train_share": 1}, "train_share must be between 0 and 1"),
    ],
)
def test_make_data_names_what_is_wrong(wrong, told):
    with pytest.raises(ValueError, match=told):
        make_data(**wrong)


def test_a_table_is_scaled_and_its_classes_numbered(csv):
    table = read_table(csv, "kind", columns=("height", "width"))
    assert table.task == "classification" and table.classes == ("in", "out") and table.columns == ("height", "width")
    given = np.array([line.split(",")[:2] for line in csv.read_text().splitlines()[1:]], float)[:, ::-1]
    np.testing.assert_allclose(table.data.points, (given - given.mean(axis=0)) / given.std(axis=0), atol=1e-12)
    np.testing.assert_array_equal(table.data.y == 0, (given**2).sum(axis=1) < 1)
    values = read_table(csv, "area")
    assert values.task == "regression" and values.columns == ("width", "height") and values.classes == ()
    np.testing.assert_allclose([values.data.y.mean(), values.data.y.std()], [0, 1], atol=1e-12)


def test_tables_that_cannot_be_used_are_refused(csv):
    with pytest.raises(DataError, match=r"no column 'color'"):
        read_table(csv, "color")
    with pytest.raises(DataError, match=r"needs two columns besides the target 'kind', got 'width'"):
        read_table(csv, "kind", columns=["width"])
    with pytest.raises(DataError, match=r"needs two columns"):
        read_table(csv, "kind", columns=["width", "width"])
    with pytest.raises(DataError, match="has 80 classes; the playground shows 6 at most"):
        read_table(csv, "area", task="classification")


def test_every_class_has_a_row_to_train_on(tmp_path):
    path = tmp_path / "rare.csv"
    rows = [f"{i % 13},{i % 11},{'rare' if i == 17 else 'abcd'[i % 4]}" for i in range(300)]
    path.write_text("\n".join(["u,v,kind", *rows]), encoding="utf-8")
    table = read_table(path, "kind")
    for seed in range(20):
        _, _, y_train, y_test = make_data(table, n_samples=20, train_share=0.1, random_state=seed)
        assert sorted(y_train) == [0, 1, 2, 3, 4] and len(y_test) == 15
    session = Session(table)
    session.advance()
    assert session.view()[1]["output"].shape == (5, 96, 96)
    path.write_text("\n".join(["u,v,kind", *rows[:9]]), encoding="utf-8")
    with pytest.raises(DataError, match="has 9 rows; the playground needs 10 at least"):
        read_table(path, "kind")


# --- settings ---------------------------------------------------------------------------------------------------------


def test_choices_are_the_tables_of_the_estimators():
    assert tuple(FIELDS["activation"].names) == tuple(HIDDEN_ACTIVATIONS)
    assert tuple(FIELDS["solver"].names) == tuple(SOLVERS)
    assert tuple(FIELDS["learning_rate"].names) == tuple(SCHEDULES)
    json.dumps(settings.described())  # what the page gets


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("noise", "much", 'must be a number from 0 to 0.5, got "much"'),
        ("noise", 0.6, "must be a number from 0 to 0.5, got 0.6"),
        ("noise", True, "must be a number"),
        ("noise", float("nan"), "must be a number"),
        ("n_samples", 20.5, "must be a whole number from 20 to 2000"),
        ("batch_size", 10**400, "must be a whole number"),
        ("activation", "Tanh", "did you mean 'tanh'?"),
        ("solver", ["adam"], "must be one of lbfgs, sgd"),
        ("features", [], "must be one or more of x1, x2"),
        ("features", "x1,x9", "must be one or more of"),
        ("features", {"x1": 1}, "must be one or more of"),
        ("hidden_layer_sizes", [9], "must be up to 6 layers of 1 to 8 units, got [9]"),
        ("hidden_layer_sizes", "2,,2,x", "must be up to 6 layers"),
        ("hidden_layer_sizes", [1] * 7, "must be up to 6 layers"),
        ("hidden_layer_sizes", None, "must be up to 6 layers"),
        ("dataset", TABLE, "must be one of circle"),
        ("colour", "red", "there is no such setting"),
        ("random_state", -1, "must be a whole number from 0 to 2147483647"),
    ],
)
def test_a_wrong_value_is_told_and_the_others_are_taken(field, value, told):
    found, problems = settings.read({field: value, "dropout": 0.2})
    assert list(problems) == [field] and told in problems[field]
    assert found == {**DEFAULTS, "dropout": 0.2}


def test_texts_of_an_address_are_read_like_json():
    texts = {"features": "x2,x1", "hidden_layer_sizes": "", "noise": "0.25", "batch_size": "7", "dataset": "moons"}
    found, problems = settings.read(texts)
    assert not problems
    assert found["features"] == ("x1", "x2") and found["hidden_layer_sizes"] == () and found["batch_size"] == 7
    assert settings.read([1, 2])[1] == {"": "settings must be an object of fields and values, got [1, 2]"}


# --- sessions ---------------------------------------------------------------------------------------------------------


def test_a_session_trains_as_the_estimator_does():
    session = Session()
    session.apply(SMALL)
    assert session.advance(5) == 5
    X, _, y, _ = make_data("spiral", n_samples=60, noise=DEFAULTS["noise"])
    model = MLPClassifier((3,), activation="tanh", learning_rate_init=0.01, alpha=0, batch_size=10, random_state=0)
    for _ in range(5):
        model.partial_fit(X, y, classes=[0, 1])
    for ours, theirs in zip(session.estimator.coefs_, model.coefs_, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("name", [name for name, field in FIELDS.items() if isinstance(field, Choice)])
def test_every_choice_trains(name):
    session = Session()
    for value in FIELDS[name].names:
        session.apply({**SMALL, "dataset": "plane" if name == "regression_loss" else "circle", name: value})
        assert session.advance(1) >= 1, (name, value)
        header, arrays = session.view()
        assert session.problem is None, (name, value)
        assert np.isfinite([header["train"]["loss"], header["test"]["loss"], *header["gradients"]]).all()
        assert np.isfinite(arrays["weights"]).all()


def test_the_largest_network_and_none():
    session = Session()
    session.apply({**SMALL, "hidden_layer_sizes": (8,) * 6, "features": tuple(FEATURES), "dataset": "blobs"})
    session.advance()
    header, arrays = session.view()
    assert header["widths"] == [7, *[8] * 6, 3] and len(header["gradients"]) == 7
    assert arrays["units"].shape == (48, 32, 32) and arrays["output"].shape == (3, 96, 96)
    assert len(arrays["weights"]) == 7 * 8 + 5 * 64 + 24 and len(arrays["biases"]) == 51
    session.apply({**SMALL, "hidden_layer_sizes": ()})
    session.advance()
    assert session.view()[1]["units"].shape == (0, 32, 32)


def test_maps_show_what_the_network_computes():
    session = Session()
    session.apply({**SMALL, "dataset": "plane", "hidden_layer_sizes": (2,), "activation": "identity"})
    session.advance(30)
    _, arrays = session.view()
    centres = EXTENT * ((2 * np.arange(32) + 1) / 32 - 1)
    x1, x2 = np.meshgrid(centres, centres[::-1])  # up is up
    for unit in range(2):
        (a, b), bias = session.estimator.coefs_[0][:, unit], session.estimator.intercepts_[0][unit]
        values = a * x1 + b * x2 + bias
        largest = np.abs(values).max()
        assert arrays["scales"][unit] == pytest.approx(largest)
        np.testing.assert_allclose(arrays["units"][unit], 128 + 127 * values / largest, atol=1)
    values = session.estimator.predict(np.column_stack([[2.97, -2.97], [2.97, -2.97]]))
    low, high = session.scene()[0]["range"]
    shown = arrays["output"][0][[0, -1], [-1, 0]]
    np.testing.assert_allclose(shown, np.clip(255 * (values - low) / (high - low), 0, 255), atol=1.5)


def test_figures_are_those_of_the_rows():
    session = Session()
    session.apply({**SMALL, "dataset": "moons", "alpha": 1.0})
    session.advance(20)
    header, _ = session.view()
    X_train, X_test, y_train, y_test = make_data("moons", n_samples=60, noise=DEFAULTS["noise"])
    for name, X, y in (("train", X_train, y_train), ("test", X_test, y_test)):
        p = session.estimator.predict_proba(X)[np.arange(len(y)), y]
        assert header[name]["loss"] == pytest.approx(-np.log(p).mean())  # without the penalty
        assert header[name]["score"] == session.estimator.score(X, y)
    session.apply({**session.settings, "dataset": "hills", "alpha": 0.0})
    session.advance(20)
    X_train, X_test, y_train, y_test = make_data("hills", n_samples=60, noise=DEFAULTS["noise"])
    assert session.view()[0]["test"]["score"] == pytest.approx(session.estimator.score(X_test, y_test))
    assert isinstance(session.estimator, MLPRegressor)


def test_changes_of_training_keep_the_weights_and_others_do_not():
    session = Session()
    session.apply(SMALL)
    session.advance(3)
    before = [W.copy() for W in session.estimator.coefs_]
    for change in ({"learning_rate_init": 0.1}, {"solver": "sgd"}, {"alpha": 1.0}, {"dropout": 0.5}, {"batch_size": 5}):
        assert session.apply({**session.settings, **change}) is False
        for W, kept in zip(session.estimator.coefs_, before, strict=True):
            np.testing.assert_array_equal(W, kept)
    assert session.epoch == 3
    session.advance()
    assert session.view()[0]["rate"] == 0.1 and not np.array_equal(session.estimator.coefs_[0], before[0])
    for change in ({"noise": 0.2}, {"activation": "relu"}, {"hidden_layer_sizes": (3, 2)}, {"batch_norm": "after"}):
        assert session.apply({**session.settings, **change}) is True
        assert session.epoch == 0


def test_reset_gives_the_first_weights_again():
    session = Session()
    session.apply(SMALL)
    first = session.view()[1]["weights"]
    session.advance(2)
    assert not np.array_equal(session.view()[1]["weights"], first)
    session.reset()
    np.testing.assert_array_equal(session.view()[1]["weights"], first)
    assert session.epoch == 0


def test_settings_that_contradict_each_other_change_nothing():
    session = Session()
    session.apply(SMALL)
    session.advance(1)
    weights = session.view()[1]["weights"]
    with pytest.raises(SettingsError) as raised:
        session.apply({**SMALL, "solver": "lbfgs", "dropout": 0.5})
    assert list(raised.value.problems) == ["dropout"]
    with pytest.raises(SettingsError, match="name a file"):
        session.apply({**SMALL, "dataset": TABLE})
    assert session.settings == SMALL and session.epoch == 1
    np.testing.assert_array_equal(session.view()[1]["weights"], weights)


@pytest.mark.filterwarnings("ignore")
def test_a_training_that_diverges_is_told_and_can_be_reset():
    session = Session()
    session.apply({**SMALL, "dataset": "plane", "solver": "sgd", "learning_rate_init": 100.0, "activation": "identity"})
    for _ in range(200):
        session.advance(10)
    header, _ = session.view()  # which has no NaN
    json.dumps(header, allow_nan=False)
    assert header["problem"].startswith("Training stopped: ") and session.advance(1) == 0
    session.reset()
    assert session.view()[0]["problem"] is None
    session.apply({**session.settings, "learning_rate_init": 0.01})
    assert session.advance(1) == 1


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"dataset": "blobs", "activation": "elu", "batch_norm": "before", "learning_rate": "cosine"},
        {"dataset": "hills", "solver": "rmsprop", "features": ("x1_x2", "sin_x1"), "hidden_layer_sizes": ()},
        {"dataset": "moons", "loss": "hinge", "alpha": 0.1, "l1_ratio": 0.5, "dropout": 0.1, "random_state": 7},
        {"dataset": "circle", "solver": "lbfgs"},
        {"dataset": TABLE},
    ],
)
def test_the_program_has_the_same_weights(change, csv, capsys):
    session = Session(read_table(csv, "kind"))
    for n_epochs in (0, 12):
        session.apply({**SMALL, **change})
        session.reset()
        session.advance(n_epochs) if n_epochs else None
        names = {}
        exec(session.code if n_epochs else re.sub(r"range\(0\)|range\(1\)", "range(0)", session.code), names)
        if not n_epochs and session.settings["solver"] == "lbfgs":
            continue
        for ours, theirs in zip(session.estimator.coefs_, names["model"].coefs_, strict=True):
            np.testing.assert_array_equal(ours, theirs)
        assert capsys.readouterr().out.startswith("train ")


# --- frames and messages ----------------------------------------------------------------------------------------------


def test_frames_are_padded_and_read_back():
    arrays = {"a": np.arange(5, dtype=np.uint8), "b": np.linspace(0, 1, 6, dtype=np.float32).reshape(2, 3)}
    frame = packed({"name": "x₁"}, {**arrays, "none": np.zeros((0, 3), np.uint8)})
    assert len(frame) % 8 == 0
    header, found = unpacked(frame)
    assert header == {"name": "x₁"}
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)
    assert found["none"].shape == (0, 3)


def kinds(answers):
    return [json.loads(a)["type"] if isinstance(a, str) else unpacked(a)[0]["type"] for a in answers]


def test_a_conversation():
    page = Conversation()
    answers = page.answer('{"type": "hello", "settings": {"dataset": "circle", "noise": "7"}}')
    assert kinds(answers) == ["hello", "settings", "scene", "view"]
    hello, told = map(json.loads, answers[:2])
    assert list(hello["fields"]) == list(FIELDS) and hello["pictures"].keys() == DATA_SETS.keys()
    assert told["settings"]["dataset"] == "circle" and list(told["problems"]) == ["noise"] and told["isNew"]
    assert kinds(page.answer('{"type": "advance", "epochs": 3}')) == ["view"]
    header, _ = unpacked(page.answer('{"type": "advance"}')[0])
    assert header["epoch"] == 4 and header["seconds"] > 0
    assert json.loads(page.answer('{"type": "code"}')[0])["code"] == page.session.code
    assert kinds(page.answer('{"type": "reset"}')) == ["settings", "scene", "view"]
    assert page.session.epoch == 0


@pytest.mark.parametrize(
    "message",
    [
        *("", "{", "[]", "7", "null", '{"type": 7}', '{"type": "quit"}', '{"type": ["hello"]}', "[" * 60000),
        *(json.dumps({"type": "advance", "epochs": wrong}) for wrong in (0, 1.5, True, "1", None, MOST_EPOCHS + 1)),
    ],
)
def test_nonsense_is_answered_by_an_error(message):
    page = Conversation()
    assert kinds(page.answer(message)) == ["error"]
    assert page.session.epoch == 0


def test_settings_that_are_no_object_are_told():
    for given in ("null", '"x"', "[]"):
        answer, *_ = Conversation().answer(f'{{"type": "settings", "settings": {given}}}')
        assert list(json.loads(answer)["problems"]) == [""]


def test_a_long_update_ends_in_time(monkeypatch):
    page = Conversation()
    monkeypatch.setattr("fastmlp.playground.conversation.UPDATE_SECONDS", 0.0)
    page.answer('{"type": "advance", "epochs": 1000}')
    assert page.session.epoch == 1


# --- the server -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server():
    with served() as running:
        yield running


def get(server, path="/", **headers):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    with contextlib.closing(connection):
        connection.putrequest("GET", path, skip_host=True)
        for name, value in {"Host": f"127.0.0.1:{server.port}", **headers}.items():
            connection.putheader(name, value)
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()


def test_the_page_comes_whole_from_the_package(server):
    status, headers, page = get(server)
    assert status == 200 and "frame-ancestors 'none'" in headers["content-security-policy"]
    texts = [page.decode()]
    for name in re.findall(r'(?:src|href)="([^"#]+)"', texts[0]):
        status, headers, body = get(server, f"/{name}")
        assert status == 200, name
        if name.endswith(".js"):
            assert headers["content-type"].startswith("text/javascript")
            texts.append(body.decode())
    for module in re.findall(r'from "\./([^"]+)"', "".join(texts)):
        assert get(server, f"/{module}")[0] == 200, module
    assert not re.findall(r"https?://(?!www\.w3\.org/2000/svg)", "".join(texts)), "everything is served from here"


@pytest.mark.parametrize("path", ["/../server.py", "/%2e%2e/server.py", "/..%2fserver.py", "/nothing"])
def test_other_files_are_not_there(server, path):
    assert get(server, path)[0] in (400, 404)


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", ""])
def test_other_hosts_are_refused(server, host):
    assert get(server, Host=host)[0] == 400
    assert get(server, Host=f"localhost:{server.port}")[0] == 200


def test_only_this_machine_can_connect(server):
    assert server.listening.getsockname()[0] == "127.0.0.1"


@pytest.mark.parametrize(
    "origin", [None, "http://evil.example", "null", "http://127.0.0.1:1", "https://127.0.0.1:{port}"]
)
def test_pages_of_other_sites_are_refused(server, origin):
    from websockets.exceptions import InvalidStatus

    origin = None if origin is None else origin.format(port=server.port)
    with pytest.raises(InvalidStatus) as raised, server.page(origin=origin):
        pass
    assert raised.value.response.status_code == 403
    with pytest.raises(InvalidStatus), server.page(additional_headers={"Host": "evil.example"}):
        pass


def test_a_page_talks_and_its_session_ends_with_it(server):
    with server.page() as page:
        page.send('{"type": "hello"}')
        assert kinds([page.recv(timeout=30) for _ in range(4)]) == ["hello", "settings", "scene", "view"]
        page.send("nonsense")
        assert kinds([page.recv(timeout=30)]) == ["error"]
        assert server.pages.n_open == 1
    server.wait_for(lambda: server.pages.n_open == 0)


def test_bytes_and_long_messages_end_the_session_alone(server):
    from websockets.exceptions import ConnectionClosed

    for message in (b"\x00\x01", "x" * (1 << 17)):
        with server.page() as page:
            page.send(message)
            with pytest.raises(ConnectionClosed):
                page.recv(timeout=30)
    server.wait_for(lambda: server.pages.n_open == 0)
    assert get(server)[0] == 200


def test_too_many_pages_are_told(server, monkeypatch):
    from websockets.exceptions import ConnectionClosed

    monkeypatch.setattr("fastmlp.playground.server.MOST_PAGES", 1)
    with server.page() as first:
        first.send('{"type": "code"}')
        first.recv(timeout=30)
        with server.page() as second, pytest.raises(ConnectionClosed) as raised:
            second.recv(timeout=30)
    assert raised.value.rcvd.code == 4001


# --- the command ------------------------------------------------------------------------------------------------------


def test_the_command_serves_until_ctrl_c(csv):
    more = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP} if sys.platform == "win32" else {}
    process = command("playground", csv, "--target", "kind", "--no-browser", text=True, **more)
    line = process.stdout.readline()
    port = int(re.search(r"http://127\.0\.0\.1:(\d+)/ - Ctrl-C ends it", line)[1])
    with served.page_of(port) as page:  # an open page does not delay the end
        page.send('{"type": "hello"}')
        hello = json.loads(page.recv(timeout=30))
        assert next(iter(hello["fields"]["dataset"]["names"].items())) == ("table", "kind")
        assert json.loads(page.recv(timeout=30))["settings"]["dataset"] == "table"
        assert f"port {port} of 127.0.0.1 cannot be had" in refused("playground", "--no-browser", "--port", port)
        begin = time.perf_counter()
        process.send_signal(signal.CTRL_BREAK_EVENT if sys.platform == "win32" else signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 0 or sys.platform == "win32", errors
    assert errors == "" and time.perf_counter() - begin < 25


def test_wrong_usage_is_told_in_a_line(csv, monkeypatch):
    assert "--target must name" in refused("playground", csv)
    assert "name a file" in refused("playground", "--target", "kind")
    assert "--task must be one of" in refused("playground", csv, "--target", "kind", "--task", "guess")
    assert "no column 'colour'" in refused("playground", csv, "--target", "colour")
    assert "No such file" in refused("playground", csv.with_name("other.csv"), "--target", "kind")
    for package in ("uvicorn", "starlette", "websockets"):
        with monkeypatch.context() as patched:
            patched.setitem(sys.modules, package, None)
            told = refused("playground", "--no-browser")
        assert told == f'fastmlp playground needs {package}: pip install "fastmlp[playground]"'


def test_the_command_costs_nothing_where_it_is_not_used():
    heavy = {"starlette", "uvicorn", "sklearn", "fastmlp.playground"}
    code = f"import sys, fastmlp.cli.app; print({heavy} & {{*sys.modules}})"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
