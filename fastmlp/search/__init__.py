"""Search for good parameters within a time limit, and the ensemble of the best trials.

Files in reading order: spaces.py (what is drawn), rows.py (training and validation rows), trials.py (one choice of
parameters, fitted and scored), ensembling.py (greedy selection), joined.py (networks as one estimator), results.py (the
table of trials), estimators.py (the two estimators for users).
"""

from fastmlp.search.estimators import EnsembleSearchClassifier, EnsembleSearchRegressor
from fastmlp.search.spaces import LogUniform, Mixture, space_of

__all__ = ["EnsembleSearchClassifier", "EnsembleSearchRegressor", "LogUniform", "Mixture", "space_of"]
