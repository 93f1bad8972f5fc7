"""Callbacks that hand epochs to other libraries: tried with the libraries, and what they read back."""

import copy
import os
import pickle
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score

from fastmlp import MLPClassifier, callbacks
from fastmlp.callbacks import MlflowLogger, OptunaPruning, TensorBoard, WandbLogger

from tiers import exhaustive
from validated_training import GIVEN, SMALL, X_VAL, Y_VAL, X, Y

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

PAGE = Path(__file__).resolve().parents[1] / "docs" / "tracking.md"
COLUMNS = ["loss", "validation_loss", "score", "learning_rate", "seconds"]


class Trial:
    """A trial that is pruned at a step; its study is elsewhere."""

    number = 7

    def __init__(self, prune_at=None, direction=None):
        self.reports, self.prune_at = {}, prune_at
        if direction is not None:
            self.study = SimpleNamespace(directions=[direction], direction=SimpleNamespace(name=direction))

    def report(self, value, step):
        self.reports[step] = value

    def should_prune(self):
        return max(self.reports) == self.prune_at


MADE = {
    "OptunaPruning": lambda: OptunaPruning(Trial()),
    "MlflowLogger": lambda: MlflowLogger(every=3),
    "TensorBoard": lambda: TensorBoard("runs", every=3),
    "WandbLogger": lambda: WandbLogger(every=3),
}


# ------------------------------------------------------------------------------- what they share


@pytest.mark.parametrize("name", MADE)
def test_they_are_public_and_can_be_copied(name):
    made = MADE[name]()
    assert type(made) is getattr(callbacks, name) and name in callbacks.__all__ and not made.reads_weights
    for other in (copy.deepcopy(made), clone(MLPClassifier(callbacks=[made])).callbacks[0]):
        assert other is not made and repr(other) == repr(made) and name in repr(made)
    assert repr(pickle.loads(pickle.dumps(made))) == repr(made)


@pytest.mark.parametrize("name", [name for name in MADE if name != "OptunaPruning"])
@pytest.mark.parametrize("every", [0, -1, None, "2"])
def test_every_must_be_positive(name, every):
    given = {"log_dir": "runs"} if name == "TensorBoard" else {}
    with pytest.raises(ValueError, match="every must be >= 1"):
        getattr(callbacks, name)(**given, every=every)


LIBRARIES = {"OptunaPruning": "optuna", "MlflowLogger": "mlflow", "TensorBoard": "tensorboard", "WandbLogger": "wandb"}


@pytest.mark.parametrize(("name", "library"), LIBRARIES.items())
def test_a_missing_library_names_the_extra(name, library, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, library, None)
    made = OptunaPruning(Trial(prune_at=0)) if name == "OptunaPruning" else MADE[name]()
    text = rf'{name} needs {library}: pip install "fastmlp\[{library}\]"'
    with pytest.raises(ImportError, match=text):
        MLPClassifier(callbacks=[made], **SMALL).fit(X, Y, **GIVEN)
    project = (PAGE.parents[1] / "pyproject.toml").read_text("utf-8")
    assert re.search(rf"^{library} = ", project, re.MULTILINE)


# ------------------------------------------------------------------------------- Optuna


@pytest.mark.parametrize(
    ("given", "parameters", "monitor", "column"),
    [
        (GIVEN, {}, None, "score"),
        (GIVEN, {"monitor": "loss"}, None, "validation_loss"),
        ({}, {}, None, "loss"),
        (GIVEN, {}, "validation_loss", "validation_loss"),
        (GIVEN, {}, "loss", "loss"),
        ({}, {"early_stopping": True}, "score", "score"),
    ],
)
def test_optuna_gets_what_the_estimator_monitors(given, parameters, monitor, column):
    trial = Trial()
    est = MLPClassifier(callbacks=[OptunaPruning(trial, monitor)], **SMALL | parameters).fit(X, Y, **given)
    assert trial.reports == dict(enumerate(est.history_[column]))


def test_a_pruned_fit_ends_and_can_be_used():
    optuna = pytest.importorskip("optuna")
    logged = []
    pruning = OptunaPruning(Trial(prune_at=3))
    est = MLPClassifier(callbacks=[pruning, lambda info: logged.append(info.epoch)], **SMALL)
    with pytest.raises(optuna.TrialPruned, match=r"pruned after epoch 4 with loss 0\.\d+"):
        est.fit(X, Y)
    assert est.n_iter_ == 4 and logged == [1, 2, 3, 4]
    est.predict(X)
    scores = {"scoring": "accuracy", "cv": 2}
    with pytest.raises(optuna.TrialPruned):
        cross_val_score(est, X, Y, error_score="raise", **scores)


@pytest.mark.parametrize(
    ("monitor", "direction"), [("score", "MINIMIZE"), ("loss", "MAXIMIZE"), ("validation_loss", "MAXIMIZE")]
)
def test_optunas_direction_must_fit(monitor, direction):
    wrong = MLPClassifier(callbacks=[OptunaPruning(Trial(direction=direction), monitor)], **SMALL)
    with pytest.raises(ValueError, match=f"OptunaPruning.monitor='{monitor}'. is for studies with direction="):
        wrong.fit(X, Y, **GIVEN)
    other = {"MINIMIZE": "MAXIMIZE", "MAXIMIZE": "MINIMIZE"}[direction]
    for right in (other, "NOT_SET"):
        trial = Trial(direction=right)
        MLPClassifier(callbacks=[OptunaPruning(trial, monitor)], **SMALL).fit(X, Y, **GIVEN)
        assert len(trial.reports) == SMALL["max_iter"]


@pytest.mark.parametrize("monitor", ["score", "validation_loss", "accuracy", "epoch", ""])
def test_a_monitor_without_values_is_refused(monitor):
    with pytest.raises(ValueError, match=f"OptunaPruning.monitor='{monitor}'. has nothing to report: monitor must be"):
        MLPClassifier(callbacks=[OptunaPruning(Trial(), monitor)], **SMALL).fit(X, Y)


@pytest.mark.parametrize("trial", [None, 3, "trial", Trial])
def test_what_is_no_trial_is_refused(trial):
    with pytest.raises(TypeError, match="trial must be a trial of Optuna, got"):
        OptunaPruning(trial)


def test_optuna_prunes_what_has_no_prospects():
    """The judge: the same fits to their ends; a pruned trial is one whose curve is below the median of those before."""
    optuna = pytest.importorskip("optuna")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    params = SMALL | {"max_iter": 8, "n_iter_no_change": 50}

    def made(trial, **more):
        rate = trial.suggest_float("rate", 1e-4, 0.1, log=True)
        return MLPClassifier(**params | more | {"learning_rate_init": rate})

    def objective(trial):
        return made(trial, callbacks=[OptunaPruning(trial)]).fit(X, Y, **GIVEN).score(X_VAL, Y_VAL)

    pruner = optuna.pruners.MedianPruner(n_startup_trials=2, n_warmup_steps=2)
    sampler = optuna.samplers.RandomSampler(seed=1)
    study = optuna.create_study(direction="maximize", sampler=sampler, pruner=pruner)
    study.optimize(objective, n_trials=8)
    finished, n_pruned = [], 0
    for trial in study.trials:
        curve = made(optuna.trial.FixedTrial(trial.params)).fit(X, Y, **GIVEN).history_["score"]
        reported = [trial.intermediate_values[step] for step in range(len(trial.intermediate_values))]
        assert reported == curve[: len(reported)]
        if trial.state.name == "PRUNED":
            n_pruned += 1
            step = len(reported) - 1
            assert step >= 2 and max(reported) < np.median([other[step] for other in finished])
        else:
            finished.append(curve)
            assert len(reported) == 8 and trial.value == curve[-1]
    assert n_pruned


def test_copies_report_to_the_trial_and_pickles_to_a_study_that_is_stored(tmp_path):
    optuna = pytest.importorskip("optuna")
    in_memory = optuna.create_study().ask()
    est = clone(MLPClassifier(callbacks=[OptunaPruning(in_memory)], **SMALL))
    est.fit(X, Y)
    assert len(in_memory.study.trials[0].intermediate_values) == est.n_iter_
    with pytest.raises(RuntimeError, match="storage="):
        pickle.loads(pickle.dumps(est)).fit(X, Y)
    journal = optuna.storages.journal.JournalFileBackend(str(tmp_path / "journal"))
    stored = optuna.create_study(storage=optuna.storages.JournalStorage(journal)).ask()
    pickle.loads(pickle.dumps(MLPClassifier(callbacks=[OptunaPruning(stored)], **SMALL))).fit(X, Y)
    assert len(stored.study.trials[0].intermediate_values) == est.n_iter_


# ------------------------------------------------------------------------------- TensorBoard


def scalars_in(folder):
    """What TensorBoard reads: name -> (steps, values)."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    events = EventAccumulator(str(folder), size_guidance={"tensors": 0}).Reload()  # 0: all of them
    tensors = {tag: events.Tensors(tag) for tag in events.Tags()["tensors"]}
    assert all(events.SummaryMetadata(tag).plugin_data.plugin_name == "scalars" for tag in tensors)
    return {
        tag: ([event.step for event in column], [float(make_ndarray(event.tensor_proto)) for event in column])
        for tag, column in tensors.items()
    }


def test_tensorboard_reads_each_epoch_back(tmp_path):
    pytest.importorskip("tensorboard")
    board = TensorBoard(tmp_path / "runs")
    est = MLPClassifier(callbacks=[board], **SMALL).fit(X, Y, **GIVEN)
    found = scalars_in(board.run_dir_)
    assert board.run_dir_ == tmp_path / "runs" / "fit-1" and list(found) == COLUMNS
    for name, (steps, values) in found.items():
        assert steps == list(range(1, 13))
        np.testing.assert_array_equal(values, np.float32(est.history_[name]))  # TensorBoard keeps 32 bits
    MLPClassifier(callbacks=[TensorBoard(str(tmp_path / "runs"), every=5)], **SMALL).fit(X, Y)
    second = scalars_in(tmp_path / "runs" / "fit-2")
    assert list(second) == ["loss", "learning_rate", "seconds"] and second["loss"][0] == [5, 10, 12]


@pytest.mark.parametrize("n_jobs", [1, *exhaustive(2)])
def test_tensorboard_in_a_search_and_after_an_error(n_jobs, tmp_path):
    pytest.importorskip("tensorboard")
    est = MLPClassifier(callbacks=[TensorBoard(tmp_path)], **SMALL)
    GridSearchCV(est, {"alpha": [0.1, 1.0]}, cv=2, n_jobs=n_jobs, refit=False).fit(X, Y)
    assert sorted(os.listdir(tmp_path)) == [f"fit-{number}" for number in range(1, 5)]
    with pytest.raises(ZeroDivisionError):
        est.set_params(callbacks=[*est.callbacks, lambda info: info.epoch == 2 and 1 / 0]).fit(X, Y)
    assert scalars_in(tmp_path / "fit-5")["loss"] == ([1, 2], np.float32(est.loss_curve_).tolist())
    pickle.dumps(est.set_params(callbacks=est.callbacks[:1]))  # the writer is closed and gone


# ------------------------------------------------------------------------------- MLflow


@pytest.fixture
def mlflow(tmp_path, monkeypatch):
    """MLflow with a store of files."""
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    module = pytest.importorskip("mlflow")
    monkeypatch.chdir(tmp_path)
    before = module.get_tracking_uri()
    module.set_tracking_uri((tmp_path / "mlruns").as_uri())
    yield module
    module.set_tracking_uri(before)


@pytest.mark.exhaustive  # MLflow takes seconds to import
def test_mlflow_has_each_epoch_and_the_parameters(mlflow):
    client = mlflow.MlflowClient()
    with mlflow.start_run() as run:
        logger = MlflowLogger()
        est = MLPClassifier(loss="focal", callbacks=[logger], **SMALL).fit(X, Y, **GIVEN)
        assert mlflow.active_run().info.run_id == run.info.run_id == logger.run_id_
    for name in COLUMNS:
        history = client.get_metric_history(run.info.run_id, name)
        assert [(row.step, row.value) for row in history] == list(enumerate(est.history_[name], 1))
    data = client.get_run(run.info.run_id).data
    expected = {name: str(value) for name, value in est.get_params().items() if name != "callbacks"}
    assert data.params == expected and "loss__gamma" in expected
    kind = "fastmlp.estimators.MLPClassifier"
    assert (data.tags["estimator_name"], data.tags["estimator_class"]) == ("MLPClassifier", kind)


@pytest.mark.exhaustive
def test_mlflow_gives_a_fit_a_run_of_its_own_and_ends_it(mlflow):
    client, logger = mlflow.MlflowClient(), MlflowLogger(log_params=False, every=5)
    est = MLPClassifier(callbacks=[logger], **SMALL).fit(X, Y)
    assert mlflow.active_run() is None
    run = client.get_run(logger.run_id_)
    assert (
        run.info.status == "FINISHED"
        and run.data.params == {}
        and set(run.data.metrics)
        == set(COLUMNS)
        - {
            "validation_loss",
            "score",
        }
    )
    assert [row.step for row in client.get_metric_history(logger.run_id_, "loss")] == [5, 10, 12]
    with pytest.raises(ZeroDivisionError):
        est.set_params(callbacks=[logger, lambda info: 1 / 0]).fit(X, Y)
    assert mlflow.active_run() is None


@pytest.mark.exhaustive
def test_mlflow_in_searches(mlflow):
    def search(**options):
        est = MLPClassifier(callbacks=[MlflowLogger(**options)], **SMALL)
        grid = GridSearchCV(est, {"alpha": [0.1, 1.0]}, cv=2, refit=False, error_score="raise")
        with mlflow.start_run() as run:
            grid.fit(X, Y)
        return run.info.run_id

    parent = search(nested=True)
    children = mlflow.search_runs(filter_string=f"tags.mlflow.parentRunId = '{parent}'", output_format="list")
    assert sorted(child.data.params["alpha"] for child in children) == ["0.1", "0.1", "1.0", "1.0"]
    with pytest.raises(mlflow.MlflowException, match="alpha") as error:
        search()
    assert "MlflowLogger(nested=True) gives each fit a run of its own" in error.value.__notes__[0]
    search(log_params=False)


# ------------------------------------------------------------------------------- Weights & Biases


class WandbRun:
    """What a run of Weights & Biases is asked for."""

    def __init__(self):
        self.config, self.metrics, self.rows = SimpleNamespace(update=self._update), {}, []

    def _update(self, values, allow_val_change=False):
        assert allow_val_change
        self.values = values

    def define_metric(self, name, step_metric=None):
        self.metrics[name] = step_metric

    def log(self, row):
        self.rows.append(row)

    def __reduce__(self):
        raise TypeError("a run belongs to one process")


def test_wandb_gets_each_epoch_and_the_parameters(monkeypatch):
    run = WandbRun()
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(run=run))
    schedule = lambda progress: 1.0  # noqa: E731
    params = SMALL | {"learning_rate": schedule, "activation": ("elu", {"alpha": 0.5})}
    est = MLPClassifier(callbacks=[WandbLogger()], **params).fit(X, Y, **GIVEN)
    assert [row.pop("epoch") for row in run.rows] == list(range(1, 13))
    assert [list(row) for row in run.rows] == [COLUMNS] * 12
    assert [row["score"] for row in run.rows] == est.history_["score"]
    assert run.metrics == {"epoch": None, **dict.fromkeys(COLUMNS, "epoch")}
    assert run.values["hidden_layer_sizes"] == [6, 5] and run.values["activation"] == ["elu", {"alpha": 0.5}]
    assert run.values["activation__alpha"] == 0.5 and run.values["learning_rate"] == str(schedule)
    assert "callbacks" not in run.values


@pytest.mark.parametrize("run", ["name", 3, {}], ids=repr)
def test_wandb_refuses_what_is_no_run(run):
    with pytest.raises(TypeError, match=r"run must be a run of Weights & Biases, as wandb\.init returns it, got"):
        WandbLogger(run)


def test_wandb_logs_copies_to_the_same_run_and_pickles_to_none(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(run=None))
    run = WandbRun()
    est = clone(MLPClassifier(callbacks=[WandbLogger(run, every=5)], **SMALL)).fit(X, Y)
    assert [row["epoch"] for row in run.rows] == [5, 10, 12] and "score" not in run.rows[0]
    with pytest.raises(RuntimeError, match=r"call wandb.init\(...\) before fit"):
        pickle.loads(pickle.dumps(est)).fit(X, Y)


# ------------------------------------------------------------------------------- the guide


def blocks_of(section):
    """Return the code that introduces the page, and that of a section."""
    text = PAGE.read_text("utf-8")
    code = r"^```(?:python|py)\n(.*?)^```$"
    intro = re.findall(code, text.split("\n## ")[0], re.MULTILINE | re.DOTALL)
    (found,) = [part for part in text.split("\n## ") if part.startswith(f"{section}\n")]
    return [*intro, *re.findall(code, found, re.MULTILINE | re.DOTALL)]


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("section", "module"),
    [("Optuna", "optuna"), ("MLflow", "mlflow"), ("TensorBoard", "tensorboard"), ("Weights & Biases", "wandb")],
)
def test_the_guide_runs_with_the_libraries(section, module, request, monkeypatch, tmp_path, capsys):
    pytest.importorskip(module)
    pytest.importorskip("skops")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_SILENT", "true")
    if module == "mlflow":
        request.getfixturevalue("mlflow")
    names = {}
    for block in blocks_of(section):
        exec(block, names)
    if module == "optuna":
        assert len(names["pruned"]) > 3 and names["study"].best_value > 0.9
    if module == "tensorboard":
        assert scalars_in(names["board"].run_dir_)["loss"][0] == list(range(1, 21))
    if module == "wandb":
        (file,) = (tmp_path / "wandb").glob("offline-run-*/run-*.wandb")
        assert file.read_bytes().count(b"validation_loss") >= 20  # a row per epoch
