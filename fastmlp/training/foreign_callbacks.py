"""Other libraries' callbacks: recognised by their modules, so that an error can say what to use instead."""

from __future__ import annotations

from typing import Any

#: First part of a module's name -> the library as its users call it.
LIBRARIES = {
    "xgboost": "XGBoost",
    "lightgbm": "LightGBM",
    "catboost": "CatBoost",
    "keras": "Keras",
    "tf_keras": "Keras",
    "tensorflow": "Keras",
    "skorch": "skorch",
    "lightning": "Lightning",
    "pytorch_lightning": "Lightning",
    "fastai": "fastai",
    "transformers": "Transformers",
    "pytorch_tabnet": "TabNet",
    "optuna": "Optuna",
    "optuna_integration": "Optuna",
    "wandb": "Weights & Biases",
    "mlflow": "MLflow",
    "tensorboard": "TensorBoard",
    "tensorboardX": "TensorBoard",
    "torch": "PyTorch",
    "tqdm": "tqdm",
}

#: Part of a class's or function's name, in lower case without underscores -> what does the same here; the first counts.
INSTEAD = {
    "pruning": "fastmlp.callbacks.OptunaPruning(trial)",
    "wandb": "fastmlp.callbacks.WandbLogger()",
    "mlflow": "fastmlp.callbacks.MlflowLogger()",
    "summarywriter": "fastmlp.callbacks.TensorBoard(log_dir)",
    "tensorboard": "fastmlp.callbacks.TensorBoard(log_dir)",
    "earlystopping": "early_stopping=True with n_iter_no_change and tol; fit takes rows to validate on as X_val, y_val",
    "checkpoint": "fastmlp.callbacks.Checkpoint(path)",
    "swa": "a function of the EpochInfo that averages info.estimator.coefs_",
    "resetparameter": "learning_rate, or info.set_learning_rate in a function of the EpochInfo",
    "learningrate": 'learning_rate ("plateau", "cosine", a function), or info.set_learning_rate in a function of the'
    " EpochInfo",
    "lrscheduler": 'learning_rate ("plateau", "cosine", a function), or info.set_learning_rate in a function of the'
    " EpochInfo",
    "lronplateau": 'learning_rate="plateau"',
    "terminateonnan": "nothing in its place: a fit whose weights are not finite raises an error",
    "maxtrials": "it in study.optimize(callbacks=[...])",
    "trial": "fastmlp.callbacks.OptunaPruning(trial)",
    "tqdm": "fastmlp.callbacks.ProgressBar()",
    "prog": "fastmlp.callbacks.ProgressBar()",
    "csvlogger": "the estimator's history_, or fastmlp.callbacks.Logging()",
    "history": "the estimator's history_",
    "recordevaluation": "the estimator's history_",
    "evaluation": "verbose=True, fastmlp.callbacks.Logging() or the estimator's history_",
    "print": "verbose=True or fastmlp.callbacks.Logging()",
    "": "a function of the EpochInfo: its loss, score, epoch, estimator",
}


def advice(callback: Any) -> str | None:
    """Return what to use instead of another library's callback; None for what is not recognised as one.

    An object of a user's own class that defines ``__call__`` is not, whatever it inherits.
    """
    maker = callback if hasattr(callback, "__qualname__") else _definer(callback)
    library = LIBRARIES.get(str(getattr(maker, "__module__", "")).partition(".")[0])
    if library is None:
        return None
    name = _name(callback)
    plain = name.replace("_", "").lower()
    instead = next(text for part, text in INSTEAD.items() if part in plain)
    return f"{name} is for {library}; use {instead}"


def _definer(callback: Any) -> type:
    """Return the class that makes an object what it is: that of ``__call__``, or the library's among its bases."""
    kinds = type(callback).__mro__
    called = next((kind for kind in kinds if "__call__" in vars(kind)), None)
    if called is not None:
        return called
    return next((kind for kind in kinds if kind.__module__.partition(".")[0] in LIBRARIES), kinds[0])


def _name(callback: Any) -> str:
    """Return the name that users know: of a function within a function, that of the outer one."""
    name = getattr(callback, "__qualname__", None) or type(callback).__name__
    return str(name).partition(".<locals>")[0]
