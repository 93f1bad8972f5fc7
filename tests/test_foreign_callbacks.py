"""Callbacks of other libraries are recognised, and the error says what to use here."""

import re

import pytest

from fastmlp import MLPClassifier
from fastmlp import callbacks as ours
from fastmlp.training.foreign_callbacks import INSTEAD, LIBRARIES, advice

from validated_training import SMALL, X, Y


def made(module, name, bases=(object,), **members):
    """An instance of a class as a library has it."""
    return type(name, bases, {"__module__": module} | members)()


def function_of(module, name):
    """A function within a function, as LightGBM had them."""

    def callback(env):
        raise AssertionError("called with what it does not know")

    callback.__module__, callback.__qualname__ = module, f"{name}.<locals>._callback"
    return callback


KERAS = type("Callback", (), {"__module__": "keras.src.callbacks.callback"})
CALL = {"__call__": lambda self, env: env.iteration}

# What people hand in -> what the message must say.
FOREIGN = {
    "xgboost early stopping": (
        made("xgboost.callback", "EarlyStopping"),
        "EarlyStopping is for XGBoost; use early_stop",
    ),
    "xgboost monitor": (made("xgboost.callback", "EvaluationMonitor"), "for XGBoost; use verbose=True"),
    "xgboost rates": (made("xgboost.callback", "LearningRateScheduler"), "for XGBoost; use learning_rate"),
    "xgboost checkpoint": (made("xgboost.callback", "TrainingCheckPoint"), r"callbacks.Checkpoint\(path\)"),
    "lightgbm object": (
        made("lightgbm.callback", "_EarlyStoppingCallback", **CALL),
        "LightGBM; use early_stopping=True",
    ),
    "lightgbm log": (made("lightgbm.callback", "_LogEvaluationCallback", **CALL), "LightGBM; use verbose=True"),
    "lightgbm record": (made("lightgbm.callback", "_RecordEvaluationCallback", **CALL), "LightGBM; use .* history_"),
    "lightgbm reset": (made("lightgbm.callback", "_ResetParameterCallback", **CALL), "LightGBM; use learning_rate"),
    "lightgbm function": (function_of("lightgbm.callback", "early_stopping"), "early_stopping is for LightGBM"),
    "keras early stopping": (made("keras.src.callbacks", "EarlyStopping", (KERAS,)), "for Keras; use early_stopping"),
    "keras plateau": (made("keras.src.callbacks", "ReduceLROnPlateau", (KERAS,)), 'learning_rate="plateau"'),
    "keras tensorboard": (made("keras.src.callbacks", "TensorBoard", (KERAS,)), r"callbacks.TensorBoard\(log_dir\)"),
    "keras csv": (made("keras.src.callbacks", "CSVLogger", (KERAS,)), "history_"),
    "keras lambda": (made("keras.src.callbacks", "LambdaCallback", (KERAS,)), "a function of the EpochInfo"),
    "keras, a user's subclass": (made("__main__", "Mine", (KERAS,)), "Mine is for Keras"),
    "tf.keras": (made("tensorflow.python.keras.callbacks", "ModelCheckpoint"), "Keras; use .*Checkpoint"),
    "skorch": (made("skorch.callbacks.scoring", "EpochScoring"), "skorch; use a function"),
    "catboost": (made("catboost.callbacks", "Anything"), "CatBoost"),
    "lightning": (made("lightning.pytorch.callbacks", "EarlyStopping"), "Lightning; use early_stopping"),
    "optuna's for others": (made("optuna_integration.xgboost", "XGBoostPruningCallback"), "OptunaPruning"),
    "optuna's for LightGBM": (made("optuna_integration.lightgbm", "LightGBMPruningCallback", **CALL), "OptunaPruning"),
    "a trial": (made("optuna.trial._trial", "Trial"), r"Optuna; use fastmlp.callbacks.OptunaPruning\(trial\)"),
    "wandb's for Keras": (made("wandb.integration.keras", "WandbMetricsLogger", (KERAS,)), "Biases; use .*WandbLogger"),
    "mlflow's for Keras": (made("mlflow.keras.callback", "MlflowCallback", (KERAS,)), r"MLflow; use .*MlflowLogger"),
    "a writer": (made("torch.utils.tensorboard.writer", "SummaryWriter"), "TensorBoard"),
    "a bar": (made("tqdm.std", "tqdm"), r"tqdm; use fastmlp.callbacks.ProgressBar\(\)"),
}


@pytest.mark.parametrize("case", FOREIGN)
def test_foreign_callbacks_are_recognised(case):
    callback, message = FOREIGN[case]
    assert re.search(message, advice(callback)), advice(callback)
    with pytest.raises(TypeError, match=message):
        MLPClassifier(callbacks=[callback], **SMALL).fit(X, Y)


def test_every_library_and_every_replacement_exists():
    assert {case.partition(" ")[0] for case in FOREIGN} >= {"xgboost", "lightgbm", "keras"}
    named = set(re.findall(r"fastmlp\.callbacks\.(\w+)", " ".join(INSTEAD.values())))
    assert named <= set(ours.__all__)
    assert all(name == name.split(".")[0] for name in LIBRARIES)


class Mine(KERAS):
    """Made for both libraries."""

    def __call__(self, info):
        return None


def by_keras_name(info):
    return None


by_keras_name.__name__ = "EarlyStopping"


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("callback", [Mine(), by_keras_name, [].append, ours.TimeLimit(60), ours.TensorBoard("x")])
def test_callbacks_of_ones_own_are_not_foreign(callback):
    assert advice(callback) is None
