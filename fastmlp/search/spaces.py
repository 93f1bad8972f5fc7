"""Spaces of parameters to search, for scikit-learn's searches too: dicts of lists and distributions.

A distribution is whatever has scikit-learn's ``rvs(random_state=...)``, as SciPy's have.  The classes here are what
SciPy has not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from scipy.stats import uniform
from sklearn.utils import check_random_state

#: What is drawn: a dict from parameter to list or distribution, or a list of such dicts, of which each is as likely.
Space = Mapping[str, Any] | Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class LogUniform:
    """Distribution whose logarithm is uniform, with a shift, a sign and whole numbers if asked for.

    A draw is ``offset + sign * x``, where x lies between `low` and `high`.

    Parameters
    ----------
    low, high : float
        Bounds of x, greater than 0.
    offset : float, default=0.0
    sign : int, default=1
        1 or -1.
    whole : bool, default=False
        Whether draws are rounded down to whole numbers.

    Examples
    --------
    The decay of a moving average, 1 - x:

    >>> 0.95 <= LogUniform(0.005, 0.05, offset=1.0, sign=-1).rvs(random_state=0) <= 0.995
    True
    """

    low: float
    high: float
    offset: float = 0.0
    sign: int = 1
    whole: bool = False

    def rvs(self, random_state: Any = None) -> float:
        """Draw a number.

        Parameters
        ----------
        random_state : int, RandomState instance or None, default=None

        Returns
        -------
        float or int
        """
        # SciPy's loguniform takes a hundred times as long
        logarithm = check_random_state(random_state).uniform(math.log(self.low), math.log(self.high))
        x = self.offset + self.sign * math.exp(logarithm)
        return int(x) if self.whole else x


@dataclass(frozen=True)
class Mixture:
    """Distribution that is one of several values or distributions, each as likely.

    Parameters
    ----------
    parts : tuple
        Values, and distributions with ``rvs``.

    Examples
    --------
    No dropout in half of the draws:

    >>> from scipy.stats import uniform
    >>> drawn = [Mixture((0.0, uniform(0, 0.5))).rvs(random_state=seed) for seed in range(20)]
    >>> 0.0 in drawn, bool(max(drawn) < 0.5)
    (True, True)
    """

    parts: tuple[Any, ...]

    def rvs(self, random_state: Any = None) -> Any:
        """Draw a value.

        Parameters
        ----------
        random_state : int, RandomState instance or None, default=None

        Returns
        -------
        object
        """
        random_state = check_random_state(random_state)
        part = self.parts[random_state.randint(len(self.parts))]
        return part.rvs(random_state=random_state) if hasattr(part, "rvs") else part


def _sizes(depths: tuple[int, ...], widths: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Return hidden layers of one width, for each depth and width."""
    return [(width,) * depth for depth, width in product(depths, widths)]


def _mlp() -> dict[str, Any]:
    """Return the space of the plain networks, after Gorishniy et al. (2021), arXiv:2106.11959, for smaller machines."""
    return {
        "hidden_layer_sizes": _sizes((1, 2, 3, 4), (64, 128, 256, 512)),
        "dropout": Mixture((0.0, uniform(0.0, 0.5))),
        "solver": ["adamw"],
        "learning_rate_init": LogUniform(1e-4, 1e-2),
        "weight_decay": Mixture((0.0, LogUniform(1e-6, 1e-3))),
        "alpha": [0.0],
        "early_stopping": [True],
        "n_iter_no_change": [16],
    }


@dataclass(frozen=True)
class Smoothed:
    """Distribution of log losses: in half of the draws the labels are smoothed, by `share`.

    Parameters
    ----------
    share : distribution

    Examples
    --------
    >>> {type(Smoothed(uniform(0.0, 0.1)).rvs(random_state=seed)).__name__ for seed in range(9)} == {"str", "tuple"}
    True
    """

    share: Any

    def rvs(self, random_state: Any = None) -> Any:
        """Draw a loss.

        Parameters
        ----------
        random_state : int, RandomState instance or None, default=None

        Returns
        -------
        str or (str, dict)
        """
        share = Mixture((None, self.share)).rvs(random_state=random_state)
        return "log_loss" if share is None else ("log_loss", {"label_smoothing": share})


def _realmlp() -> list[dict[str, Any]]:
    """Return the published space of RealMLP-TD but for its `n_ens` of 8: the ensemble of trials takes its place.

    Half of the trials have a larger part: sizes of the embeddings of numbers, and twice the epochs.
    """
    common = {
        "hidden_layer_sizes": _sizes((2, 3, 4), (256, 384, 512)),
        "activation": ["mish"],
        "dropout": uniform(0.0, 0.5),
        "learning_rate_init": LogUniform(0.02, 0.3),
        "weight_decay": LogUniform(0.001, 0.05),
        "beta_2": LogUniform(0.005, 0.05, offset=1.0, sign=-1),
        "plr_sigma": LogUniform(0.01, 50.0),
        "plr_lr_factor": LogUniform(0.05, 0.3),
        "scale_lr_factor": LogUniform(2.0, 10.0),
        "first_layer_lr_factor": LogUniform(0.3, 1.5),
        "max_one_hot_cat_size": LogUniform(4, 33, whole=True),
        "embedding_size": [4, 8, 16],
    }
    larger = {
        "plr_hidden_1": [8, 16, 32, 64],
        "plr_hidden_2": [8, 16, 32, 64],
        "max_iter": [256, 512],
        "n_iter_no_change": [20, np.inf],
        "patience_growth": [1.0],
    }
    return [common, common | larger]


def _realmlp_classifier() -> list[dict[str, Any]]:
    return [part | {"loss": Smoothed(LogUniform(0.005, 0.1))} for part in _realmlp()]


def _tabm() -> dict[str, Any]:
    """Return the space of TabM in TabArena (2025), arXiv:2506.16791: TabM-mini with piecewise-linear embeddings.

    It is the space of Gorishniy et al. (2024), arXiv:2410.24210, without nets of one hidden layer or narrow ones.
    """
    return {
        "arch_type": ["tabm-mini"],
        "hidden_layer_sizes": _sizes((2, 3, 4, 5), tuple(range(128, 1025, 16))),
        "dropout": Mixture((0.0, uniform(0.0, 0.5))),
        "learning_rate_init": LogUniform(1e-4, 3e-3),
        "weight_decay": Mixture((0.0, LogUniform(1e-4, 1e-1))),
        "d_embedding": list(range(8, 33, 4)),
        "num_emb_n_bins": list(range(2, 129)),
    }


#: Class of an estimator -> its space.
SPACES: dict[str, Callable[[], Space]] = {
    "MLPClassifier": _mlp,
    "MLPRegressor": _mlp,
    "RealMLPClassifier": _realmlp_classifier,
    "RealMLPRegressor": _realmlp,
    "TabMClassifier": _tabm,
    "TabMRegressor": _tabm,
}


def space_of(estimator: Any) -> Space:
    """Return the space of an estimator of fastmlp; the one that searches of it take by default.

    Parameters
    ----------
    estimator : estimator
        An instance; of a subclass, the space is the one of its base.

    Returns
    -------
    dict of str to list or distribution, or list of such dicts
        What scikit-learn's ``RandomizedSearchCV`` takes as ``param_distributions``.

    Raises
    ------
    ValueError
        If there is none.

    Examples
    --------
    >>> from fastmlp import MLPClassifier
    >>> space_of(MLPClassifier())["solver"]
    ['adamw']
    """
    for cls in type(estimator).__mro__:
        if cls.__name__ in SPACES and cls.__module__.partition(".")[0] == "fastmlp":
            return SPACES[cls.__name__]()
    raise ValueError(
        f"param_distributions must be given for {type(estimator).__name__}: only {', '.join(SPACES)} have a space of"
        " their own"
    )


def draws_numbers(space: Space) -> bool:
    """Return whether a space holds a distribution, so that it has no end."""
    return any(hasattr(value, "rvs") for part in parts_of(space) for value in part.values())


def parts_of(space: Space) -> Sequence[Mapping[str, Any]]:
    """Return the dicts of a space."""
    return [space] if isinstance(space, Mapping) else space


def default_estimator(task: str, scoring: Any) -> Any:
    """Return what a search tunes by default: a RealMLP whose best epoch is chosen by the scoring, if that has a name.

    `task` is "Classifier" or "Regressor".
    """
    from fastmlp.tabular_estimators import RealMLPClassifier, RealMLPRegressor

    cls: Any = {"Classifier": RealMLPClassifier, "Regressor": RealMLPRegressor}[task]
    return cls(monitor=scoring) if isinstance(scoring, str) else cls()
