"""A small problem with validation rows, and a small, short training."""

import numpy as np

import parity
from tiers import exhaustive

#: Engines that know all of it; plain `pytest` takes one: validation is the same on every engine but for rounding.
BACKENDS = ["cython", *exhaustive("reference")]

X_ALL, Y_ALL, _ = parity.make_problem("multiclass", n_rows=140)
V_ALL = parity.make_problem("regression", n_rows=140).y
X, Y, V = X_ALL[:100], Y_ALL[:100], V_ALL[:100]
X_VAL, Y_VAL, V_VAL = X_ALL[100:], Y_ALL[100:], V_ALL[100:]
GIVEN = {"X_val": X_VAL, "y_val": Y_VAL}
GIVEN_VALUES = {"X_val": X_VAL, "y_val": V_VAL}
WEIGHT_VAL = np.linspace(0, 2, 40)
SMALL = {"hidden_layer_sizes": (6, 5), "max_iter": 12, "random_state": 0, "learning_rate_init": 0.02, "batch_size": 16}
