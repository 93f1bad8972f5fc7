"""A small problem and a small, short training, for the tests of parameters."""

import numpy as np

import fastmlp
from fastmlp.engines import backends

import parity
from tiers import exhaustive

#: Engines that know all of it; plain `pytest` takes the default one: what a parameter does is the same on every engine
#: but for rounding, and test_engine_options.py has every engine's options.
BACKENDS = [backends.available()[0], *exhaustive(*backends.available()[1:])]

X, Y, WEIGHT = parity.make_problem("multiclass")  # X (80, 6), three classes
Y_BINARY = parity.make_problem("binary").y
Y_LABELS = parity.make_problem("multilabel").y  # (80, 3)
Y_VALUES = parity.make_problem("regression").y
Y_COUNTS = parity.make_problem("poisson").y
Y_SHARES = np.exp(X[:, :3]) / np.exp(X[:, :3]).sum(axis=1, keepdims=True)  # rows are distributions
SMALL = {"hidden_layer_sizes": (6, 5), "max_iter": 6, "random_state": 0, "learning_rate_init": 0.01, "batch_size": 16}


@fastmlp.activation
def swish(z):
    return z / (1 + exp(-z))  # noqa: F821


@fastmlp.loss
def cauchy(y, p):
    return log1p((y - p) * (y - p))  # noqa: F821
