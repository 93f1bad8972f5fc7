"""Search for good parameters: within a time limit, with the ensemble of the best trials, or as scikit-learn does.

Files in reading order: spaces.py (what is drawn), rows.py (training and validation rows), trials.py (one choice of
parameters, fitted and scored), ensembling.py (greedy selection), joined.py (networks as one estimator), results.py (the
table of trials), estimators.py (the two estimators for users).  scikit-learn's searches: threads.py (its fits on
threads), batched.py (the searches for users).
"""

from fastmlp.search.batched import BatchedGridSearchCV, BatchedRandomizedSearchCV
from fastmlp.search.estimators import EnsembleSearchClassifier, EnsembleSearchRegressor
from fastmlp.search.spaces import LogUniform, Mixture, space_of
from fastmlp.search.threads import on_threads

__all__ = [
    "BatchedGridSearchCV",
    "BatchedRandomizedSearchCV",
    "EnsembleSearchClassifier",
    "EnsembleSearchRegressor",
    "LogUniform",
    "Mixture",
    "on_threads",
    "space_of",
]
