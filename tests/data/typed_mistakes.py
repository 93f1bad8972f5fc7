"""Mistakes in a user's program: a type checker must report each line marked ``# wrong``, and no other.

``tests/test_types.py`` runs pyright and mypy on it. Nobody runs the program.
"""

import numpy as np

import fastmlp
from fastmlp import MLPClassifier, MLPRegressor, RealMLPClassifier, TabMClassifier
from fastmlp.callbacks import Checkpoint, EpochInfo, TimeLimit
from fastmlp.displays import LossCurveDisplay

X = np.zeros((10, 2))
y = np.arange(10) % 2

# --- parameters -------------------------------------------------------------------------------------------------------

MLPClassifier(alphaa=1e-4)  # wrong: misspelt
MLPRegressor(epochs=10)  # wrong: of another library
MLPClassifier(hidden_layer_sizes="100")  # wrong: text
MLPClassifier((8.5,))  # wrong: no integer
MLPClassifier((8,), "relu", "adam")  # wrong: keyword-only
MLPClassifier(solver="adamm")  # wrong: unknown name
MLPClassifier(activation="rellu")  # wrong: unknown name
MLPClassifier(activation=["relu", "rellu"])  # wrong: unknown name within
MLPClassifier(loss="squared_error")  # wrong: a loss of regressors
MLPRegressor(loss="log_loss")  # wrong: a loss of classifiers
MLPRegressor(loss=("hubr", {"delta": 2.0}))  # wrong: unknown name in a pair
MLPClassifier(learning_rate=0.01)  # wrong: a number in place of a schedule
MLPClassifier(dropout_schedule="plateau")  # wrong: no function of the step
MLPClassifier(matmul_precision="low")  # wrong: there is no such precision
MLPClassifier(restore_best="first")  # wrong: unknown name
MLPClassifier(max_iter=3.5)  # wrong: no integer
MLPClassifier(alpha="small")  # wrong: text
MLPClassifier(init="xavier")  # wrong: unknown name
MLPClassifier(backend="gpu")  # wrong: unknown name
MLPClassifier(batch_norm="behind")  # wrong: unknown name
MLPClassifier(monitor="accurac")  # wrong: unknown name
MLPClassifier(class_weight="balancd")  # wrong: unknown name
MLPRegressor(class_weight="balanced")  # wrong: of classifiers alone
MLPClassifier(standardize_y=True)  # wrong: of regressors alone
RealMLPClassifier(preset="tds")  # wrong: unknown name
RealMLPClassifier(alpha=0.1)  # wrong: of other estimators
TabMClassifier(clamp_output=True)  # wrong: of regressors alone

# --- methods and attributes -------------------------------------------------------------------------------------------

clf, reg = MLPClassifier().fit(X, y), MLPRegressor().fit(X, y)
clf.predicted(X)  # wrong: misspelt
print(MLPClassifier().fit(X, y).coef_)  # wrong: misspelt
reg.predict_proba(X)  # wrong: of classifiers alone
clf.solvr = "adam"  # wrong: misspelt
clf.fit(X)  # wrong: no y
clf.fit(X, y, epochs=3)  # wrong: no such argument
clf.fit(X, y, None, X, y)  # wrong: keyword-only
clf.fit(X, y, resume_from=3)  # wrong: no path
reg.partial_fit(X, y, classes=[0, 1])  # wrong: of classifiers alone
labels: str = clf.predict(X)  # wrong: an array
epochs: str = clf.n_iter_  # wrong: an int
clf.history_["loss"].mean()  # wrong: a list
print(clf.summary().layrs)  # wrong: misspelt

# --- callbacks, files, pictures ---------------------------------------------------------------------------------------


def two(epoch: int, loss: float) -> bool:
    return loss < epoch


def counting(info: EpochInfo) -> int:
    return info.epoch


def reading(info: EpochInfo) -> None:
    print(info.accuracy)  # wrong: misspelt


MLPClassifier(callbacks=[two])  # wrong: takes one argument
MLPClassifier(callbacks=[counting])  # wrong: returns a bool, or None
MLPClassifier(callbacks=TimeLimit(60))  # wrong: a list
TimeLimit("60")  # wrong: text
Checkpoint("fit.npz", everry=10)  # wrong: misspelt
fastmlp.load(3)  # wrong: no path
fastmlp.load("model.safetensors").predct(X)  # wrong: misspelt
fastmlp.loads("model.safetensors")  # wrong: misspelt
clf.save()  # wrong: no path
LossCurveDisplay.from_estimators(clf)  # wrong: misspelt
LossCurveDisplay.from_history(clf.history_, best="accuracy")  # wrong: unknown name
print(LossCurveDisplay.from_estimator(clf).plot(score=False).axes_)  # wrong: misspelt
