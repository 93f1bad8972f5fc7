"""MLPClassifier and MLPRegressor: scikit-learn's contract around an engine; no numerics here.

``fit`` in one screen: validate -> encode y -> Network -> initial flat params (or those behind coefs_) -> backend ->
train -> expose views.  Whatever does not fit on that screen lives in targets.py, network.py, training.py, backends.py.
"""

from __future__ import annotations

import operator
from abc import ABCMeta, abstractmethod
from collections.abc import Iterable
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin, _fit_context
from sklearn.metrics import accuracy_score, r2_score
from sklearn.preprocessing import LabelBinarizer
from sklearn.utils import check_random_state, column_or_1d
from sklearn.utils._param_validation import Interval, Options, StrOptions
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import _check_partial_fit_first_call, type_of_target, unique_labels
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from fastmlp import backends, targets
from fastmlp.backends import Data
from fastmlp.kernels import formulas
from fastmlp.network import Network
from fastmlp.optimizers import make_optimizer
from fastmlp.schedules import SCHEDULES
from fastmlp.training import train_lbfgs, train_stochastic, validation_split

STOCHASTIC_SOLVERS = ("sgd", "adam")
HIDDEN_ACTIVATIONS = {name for name, row in formulas.ACTIVATIONS.items() if row.hidden}


backends.get("auto")  # imported with the estimators, so that the first fit is not slower than the next


def _has_partial_fit(estimator: _BaseMLP) -> bool:
    if estimator.solver not in STOCHASTIC_SOLVERS:
        raise AttributeError(
            f"partial_fit is only available for stochastic optimizers. {estimator.solver} is not stochastic."
        )
    return True


class _BaseMLP(BaseEstimator, metaclass=ABCMeta):
    """What classifier and regressor share: parameters, fit, and the forward pass."""

    hidden_layer_sizes: Any
    activation: str
    solver: str
    alpha: float
    batch_size: int | str
    learning_rate: str
    learning_rate_init: float
    power_t: float
    max_iter: int
    shuffle: bool
    random_state: Any
    tol: float
    verbose: bool
    warm_start: bool
    momentum: float
    nesterovs_momentum: bool
    early_stopping: bool
    validation_fraction: float
    beta_1: float
    beta_2: float
    epsilon: float
    n_iter_no_change: float
    max_fun: int
    backend: str
    n_jobs: int | None

    _parameter_constraints: ClassVar[dict] = {
        "hidden_layer_sizes": ["array-like", Interval(Integral, 1, None, closed="left")],
        "activation": [StrOptions(HIDDEN_ACTIVATIONS)],
        "solver": [StrOptions({"lbfgs", *STOCHASTIC_SOLVERS})],
        "alpha": [Interval(Real, 0, None, closed="left")],
        "batch_size": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "learning_rate": [StrOptions(set(SCHEDULES))],
        "learning_rate_init": [Interval(Real, 0, None, closed="neither")],
        "power_t": [Interval(Real, 0, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "shuffle": ["boolean"],
        "random_state": ["random_state"],
        "tol": [Interval(Real, 0, None, closed="left")],
        "verbose": ["verbose"],
        "warm_start": ["boolean"],
        "momentum": [Interval(Real, 0, 1, closed="both")],
        "nesterovs_momentum": ["boolean"],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="left")],
        "beta_1": [Interval(Real, 0, 1, closed="left")],
        "beta_2": [Interval(Real, 0, 1, closed="left")],
        "epsilon": [Interval(Real, 0, None, closed="neither")],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left"), Options(Real, {np.inf})],
        "max_fun": [Interval(Integral, 1, None, closed="left")],
        "backend": [str],
        "n_jobs": [
            Interval(Integral, 1, None, closed="left"),
            Interval(Integral, None, -1, closed="right"),
            None,
        ],
    }

    def _store(self, arguments: dict[str, Any]) -> None:
        """Keep the constructor's arguments under their names, untouched, as scikit-learn wants it."""
        for name in arguments.keys() - {"self"}:
            setattr(self, name, arguments[name])

    # --- what a task defines ---------------------------------------------------------------------------------------

    @abstractmethod
    def _validate_input(self, X: Any, y: Any, incremental: bool, reset: bool) -> tuple[Any, Any]:
        """Validated X and y, with scikit-learn's errors."""

    @abstractmethod
    def _link_and_outputs(self, y: np.ndarray) -> tuple[str, int]:
        """(output activation, number of outputs) of a network first trained on y."""

    @abstractmethod
    def _encode(self, y: np.ndarray, dtype: np.dtype) -> np.ndarray:
        """Training targets."""

    @abstractmethod
    def _decode(self, output: np.ndarray) -> np.ndarray:
        """Predictions from outputs (n, n_outputs)."""

    @abstractmethod
    def _score(self, output: np.ndarray, y: np.ndarray, sample_weight: np.ndarray | None) -> float:
        """Validation score of early stopping from outputs (n, n_outputs)."""

    @abstractmethod
    def _stratify(self, y: np.ndarray) -> np.ndarray | None:
        """What the validation split is stratified by."""

    # --- fitting ---------------------------------------------------------------------------------------------------

    def _fit(self, X: Any, y: Any, sample_weight: Any = None, incremental: bool = False) -> Self:
        hidden = self._hidden_sizes()
        engine = backends.get(self.backend)
        first_pass = not hasattr(self, "coefs_") or (not self.warm_start and not incremental)
        X, y = self._validate_input(X, y, incremental, reset=first_pass)
        if sample_weight is not None:
            sample_weight = _check_sample_weight(sample_weight, X)
        self._random_state = check_random_state(self.random_state)
        network = self._new_network(X, y, hidden) if first_pass else self._fitted_network()
        if first_pass:
            self._initialize(network)
        if self.solver == "lbfgs":
            network = network.with_dtype(np.float64)
        self.n_outputs_ = network.widths[-1]
        params = network.flatten(self.coefs_, self.intercepts_)
        self._expose(network, params)
        if sample_weight is not None:
            sample_weight = sample_weight.astype(network.dtype, copy=False)
        data = Data(_engine_rows(X), self._encode(y, network.dtype), sample_weight)
        if self.solver == "lbfgs":
            self._expose(network, train_lbfgs(self, engine, network, params, data))
        else:
            self._train_stochastic(engine, network, params, data, X, y, incremental)
        if not all(np.isfinite(w).all() for w in (*self.coefs_, *self.intercepts_)):
            raise ValueError(
                "Solver produced non-finite parameter weights. The input data may contain large values and need to be"
                " preprocessed."
            )
        return self

    def _train_stochastic(
        self, engine: Any, network: Network, params: np.ndarray, data: Data, X: Any, y: np.ndarray, incremental: bool
    ) -> None:
        if not incremental or not hasattr(self, "_optimizer"):
            self._optimizer = make_optimizer(self.solver, network, self.get_params(deep=False))
        if not self.early_stopping:
            train_stochastic(self, engine, network, params, data, single_epoch=incremental)
            return
        if incremental:
            raise ValueError("partial_fit does not support early_stopping=True")
        rows, validation = validation_split(X.shape[0], self.validation_fraction, self._random_state, self._stratify(y))
        weight = None if data.sample_weight is None else data.sample_weight[validation]

        def score() -> float:
            return self._score(self._output(engine, network, params, data.X, validation), y[validation], weight)

        train_stochastic(self, engine, network, params, data, rows, score)

    def _hidden_sizes(self) -> list[int]:
        sizes = self.hidden_layer_sizes
        sizes = list(sizes) if isinstance(sizes, Iterable) else [sizes]
        if np.any(np.array(sizes) <= 0):
            raise ValueError(f"hidden_layer_sizes must be > 0, got {sizes}.")
        return sizes

    def _new_network(self, X: Any, y: np.ndarray, hidden: list[int]) -> Network:
        self.out_activation_, n_outputs = self._link_and_outputs(y)
        widths = (X.shape[1], *(int(h) for h in hidden), n_outputs)
        network = Network(
            widths, (self.activation,) * len(hidden), targets.LOSS_OF_LINK[self.out_activation_], np.dtype(X.dtype)
        )
        # parameters, gradient and their best copy, or two optimizer states
        network.check_memory(n_vectors=3)
        return network

    def _fitted_network(self) -> Network:
        """The network that coefs_ and intercepts_ describe, whoever set them."""
        coefs = [np.asarray(W) for W in self.coefs_]
        for i, W in enumerate(coefs):
            if W.ndim != 2 or (i and W.shape[0] != coefs[i - 1].shape[1]):
                raise ValueError(f"coefs_ must be a chain of matrices, got shapes {[W.shape for W in coefs]}")
        if len(self.intercepts_) != len(coefs):
            raise ValueError(f"intercepts_ must hold {len(coefs)} vectors, got {len(self.intercepts_)}")
        dtype = np.result_type(*(W.dtype for W in coefs))
        return Network(
            (coefs[0].shape[0], *(W.shape[1] for W in coefs)),
            (self.activation,) * (len(coefs) - 1),
            targets.LOSS_OF_LINK[self.out_activation_],
            np.dtype(dtype if dtype in (np.float32, np.float64) else np.float64),
        )

    def _initialize(self, network: Network) -> None:
        """Fitted attributes of a first fit, in scikit-learn's order of random draws."""
        self.n_iter_ = 0
        self.t_ = 0
        self.n_layers_ = network.n_layers + 1
        params = network.initial_params(self._random_state, gain=2.0 if self.activation == "logistic" else 6.0)
        self._expose(network, params)
        self._best_params = params.copy() if self.early_stopping else params
        if self.solver in STOCHASTIC_SOLVERS:
            self.loss_curve_: list[float] = []
            self._no_improvement_count = 0
            self.validation_scores_: list[float] | None = [] if self.early_stopping else None
            self.best_validation_score_ = -np.inf if self.early_stopping else None
            self.best_loss_ = None if self.early_stopping else np.inf

    def _expose(self, network: Network, params: np.ndarray) -> None:
        self.coefs_ = network.coefs(params)
        self.intercepts_ = network.intercepts(params)
        self._idle_predictions: list[_Prediction] = []

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fit the network to X and y.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Training rows; float32 and float64 are used as they are, in any memory layout.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Class labels, label indicators, or values to regress on.
        sample_weight : array-like of shape (n_samples,), default=None
            Weight of each row in the loss.

        Returns
        -------
        self : object
            The fitted estimator.

        Raises
        ------
        ValueError
            For invalid data or parameters, an unknown backend, or weights that diverged.
        MemoryError
            If the layer sizes cannot fit this machine.
        """
        return self._fit(X, y, sample_weight=sample_weight)

    # --- prediction ------------------------------------------------------------------------------------------------

    def _outputs_of(self, X: Any) -> np.ndarray:
        """Outputs (n, n_outputs) of the present coefs_ and intercepts_ for X as users give it."""
        idle: list[_Prediction] = self.__dict__.get("_idle_predictions", [])
        # out of the list while in use: a concurrent call makes its own
        prediction = idle.pop() if idle else None
        if prediction is None or not prediction.fits(self):
            check_is_fitted(self)
            prediction = _Prediction(self)
        out = prediction(self, X) if prediction.takes(X) else None
        if out is None:
            X = validate_data(self, X, accept_sparse=["csr", "csc"], reset=False)
            dtype = np.result_type(X.dtype, prediction.network.dtype)
            dtype = dtype if dtype in (np.float32, np.float64) else np.dtype(np.float64)
            X = _engine_rows(X if X.dtype in (np.float32, np.float64) else X.astype(dtype))
            if dtype != prediction.network.dtype:
                network = prediction.network.with_dtype(dtype)
                params = prediction.params(self).astype(dtype)
                return self._output(prediction.engine, network, params, X)
            out, _ = prediction.outputs(self, X)
        idle.append(prediction)
        return out

    def _output(
        self, engine: Any, network: Network, params: np.ndarray, X: Any, rows: np.ndarray | None = None
    ) -> np.ndarray:
        n = X.shape[0] if rows is None else len(rows)
        out = np.empty((n, network.widths[-1]), dtype=network.dtype)
        engine.predict(engine.workspace(network, n, self.n_jobs), params, X, out, rows)
        return out

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        state.pop("_idle_predictions", None)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if "coefs_" in state and "out_activation_" in state:
            # pickling has cut the views apart
            network = self._fitted_network()
            self._expose(network, network.flatten(self.coefs_, self.intercepts_))

    def predict(self, X: Any) -> np.ndarray:
        """Predict labels or values.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_outputs)
            Class labels, label indicators, or values.
        """
        return self._decode(self._outputs_of(X))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags


class _Prediction:
    """What repeated predictions of one fitted estimator share: network, engine, workspace.

    It remembers which arrays it was made for.  Weights edited in place are seen, since engines read them at every
    call; weights, backend or n_jobs replaced make it not fit any more.
    """

    def __init__(self, estimator: _BaseMLP) -> None:
        self.made_for = self._identity(estimator)
        self.network = estimator._fitted_network()
        # NumPy keeps one object per native dtype, so that a comparison by identity misses no clean array
        self.dtype = np.dtype(self.network.dtype.type)
        self.n_features, self.n_outputs = self.network.widths[0], self.network.widths[-1]
        self.engine = backends.get(estimator.backend)
        self.has_names = hasattr(estimator, "feature_names_in_")
        self.shared = self.network.shared_base(estimator.coefs_, estimator.intercepts_)
        self.workspace: Any = None
        self.rows = 0

    @staticmethod
    def _identity(estimator: _BaseMLP) -> tuple:
        return (*estimator.coefs_, *estimator.intercepts_, estimator.backend, estimator.n_jobs, estimator.activation)

    def fits(self, estimator: _BaseMLP) -> bool:
        """Whether the estimator still has the arrays this was made for."""
        now = self._identity(estimator)
        return len(now) == len(self.made_for) and all(map(operator.is_, now, self.made_for))

    def takes(self, X: Any) -> bool:
        """Whether X needs none of scikit-learn's validation if it is finite: a plain array of this width and dtype."""
        return (
            type(X) is np.ndarray
            and X.dtype is self.dtype
            and X.ndim == 2
            and X.shape[1] == self.n_features
            and X.shape[0] > 0
            and X.flags.c_contiguous
            and not self.has_names
        )

    def params(self, estimator: _BaseMLP) -> np.ndarray:
        """The flat vector as it is now."""
        if self.shared is not None:
            return self.shared
        return self.network.flatten(estimator.coefs_, estimator.intercepts_)

    def __call__(self, estimator: _BaseMLP, X: Any) -> np.ndarray | None:
        """Outputs (n, n_outputs); None if X is not finite, which scikit-learn's validation has to judge."""
        out, finite = self.outputs(estimator, X)
        return out if finite else None

    def outputs(self, estimator: _BaseMLP, X: Any) -> tuple[np.ndarray, bool]:
        """Outputs (n, n_outputs), and whether X is finite."""
        n = X.shape[0]
        if n > self.rows:
            self.rows = n
            self.workspace = self.engine.workspace(self.network, n, estimator.n_jobs)
        out = np.empty((n, self.n_outputs), dtype=self.dtype)
        return out, self.engine.predict(self.workspace, self.params(estimator), X, out)


def _engine_rows(X: Any) -> Any:
    """X as engines take it: dense as it is, sparse as CSR."""
    return X if isinstance(X, np.ndarray) else X.tocsr()


_PARAMETERS = """
    hidden_layer_sizes : array-like of shape (n_layers - 2,), default=(100,)
        Units of each hidden layer; an int is one layer, an empty sequence none.

    activation : {activations}, default='relu'
        Activation of the hidden layers.

    solver : {{'lbfgs', 'sgd', 'adam'}}, default='adam'
        'sgd' and 'adam' train on mini-batches, 'lbfgs' on all rows at once (SciPy's L-BFGS-B, always in float64).

    alpha : float, default=0.0001
        Strength of the L2 penalty; divided by the (weighted) number of rows of a batch.

    batch_size : int, default='auto'
        Rows per mini-batch; 'auto' is ``min(200, n_samples)``.

    learning_rate : {{'constant', 'invscaling', 'adaptive'}}, default='constant'
        Schedule of solver 'sgd': as given; ``learning_rate_init / t ** power_t``; or divided by five whenever
        training stops to improve.

    learning_rate_init : float, default=0.001
        Learning rate of 'sgd' and 'adam' at the start.

    power_t : float, default=0.5
        Exponent of 'invscaling'.

    max_iter : int, default=200
        Most epochs ('sgd', 'adam') or iterations ('lbfgs').

    shuffle : bool, default=True
        Whether each epoch visits the rows in a new order.

    random_state : int, RandomState instance or None, default=None
        Source of initial weights, validation split and shuffles, drawn in scikit-learn's order.

    tol : float, default=1e-4
        What counts as an improvement; for 'lbfgs' the gradient tolerance.

    verbose : bool, default=False
        Whether to print the loss of each epoch.

    warm_start : bool, default=False
        Whether fit goes on from the weights of the fit before.

    momentum : float, default=0.9
        Momentum of 'sgd', in [0, 1].

    nesterovs_momentum : bool, default=True
        Whether that momentum is Nesterov's.

    early_stopping : bool, default=False
        Whether to hold out rows, stop when their score no longer rises, and keep the best weights.

    validation_fraction : float, default=0.1
        Share of the rows held out by early stopping.

    beta_1 : float, default=0.9
        Decay of Adam's first moment, in [0, 1).

    beta_2 : float, default=0.999
        Decay of Adam's second moment, in [0, 1).

    epsilon : float, default=1e-8
        Added to the root of Adam's second moment.

    n_iter_no_change : int, default=10
        Epochs without improvement after which training stops; ``np.inf``: never.

    max_fun : int, default=15000
        Most evaluations of the loss by 'lbfgs'.

    backend : str, default='auto'
        Engine: 'auto', 'cython', or 'reference' (plain NumPy, for cross-checks).

    n_jobs : int, default=None
        Most threads to use; None leaves the choice to the engine.
"""

_ATTRIBUTES = """
    loss_ : float
        Loss of the last epoch or iteration.

    best_loss_ : float or None
        Lowest training loss; None with early stopping.

    loss_curve_ : list of float
        Loss of each epoch ('sgd', 'adam').

    validation_scores_ : list of float or None
        Validation score of each epoch with early stopping.

    best_validation_score_ : float or None
        Highest validation score with early stopping.

    t_ : int
        Training rows seen.

    coefs_ : list of ndarray of shape (fan_in, fan_out)
        Weights of each layer, views of one flat vector after fit.  Editing or replacing them changes predictions.

    intercepts_ : list of ndarray of shape (fan_out,)
        Biases of each layer.

    n_features_in_ : int
        Features seen during fit.

    feature_names_in_ : ndarray of shape (n_features_in_,)
        Their names, if X had string column names.

    n_iter_ : int
        Epochs or iterations done.

    n_layers_ : int
        Layers, input and output included.

    n_outputs_ : int
        Output units.

    out_activation_ : str
        Output activation.
"""


def _document(cls: type) -> type:
    """Insert the shared parameters and attributes into a class docstring."""
    names = "{" + ", ".join(f"'{name}'" for name in formulas.ACTIVATIONS if name in HIDDEN_ACTIVATIONS) + "}"
    doc = cls.__doc__ or ""
    cls.__doc__ = doc.replace("    %(parameters)s", _PARAMETERS.strip("\n").format(activations=names)).replace(
        "    %(attributes)s", _ATTRIBUTES.strip("\n")
    )
    return cls


@_document
class MLPClassifier(ClassifierMixin, _BaseMLP):
    """Multi-layer perceptron classifier: binary, multiclass and multilabel, trained on log loss.

    Drop-in for :class:`sklearn.neural_network.MLPClassifier`: for the same parameters and ``random_state`` the same
    weights, up to rounding.

    Parameters
    ----------
    %(parameters)s

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Class labels.

    %(attributes)s

    References
    ----------
    Rumelhart, Hinton and Williams (1986), Learning representations by back-propagating errors.
    Kingma and Ba (2014), Adam: a method for stochastic optimization, arXiv:1412.6980.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.preprocessing import scale
    >>> from fastmlp import MLPClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> clf = MLPClassifier((16,), learning_rate_init=0.01, max_iter=500, random_state=0).fit(scale(X), y)
    >>> clf.score(scale(X), y) > 0.95
    True
    """

    def __init__(
        self,
        hidden_layer_sizes: Any = (100,),
        activation: str = "relu",
        *,
        solver: str = "adam",
        alpha: float = 0.0001,
        batch_size: int | str = "auto",
        learning_rate: str = "constant",
        learning_rate_init: float = 0.001,
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: bool = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: float = 10,
        max_fun: int = 15000,
        backend: str = "auto",
        n_jobs: int | None = None,
    ) -> None:
        self._store(locals())

    def _validate_input(self, X: Any, y: Any, incremental: bool, reset: bool) -> tuple[Any, Any]:
        X, y = validate_data(
            self,
            X,
            y,
            accept_sparse=["csr", "csc"],
            multi_output=True,
            dtype=(np.float64, np.float32),
            reset=reset,
        )
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        if not hasattr(self, "classes_") or (not self.warm_start and not incremental):
            self._label_binarizer = LabelBinarizer().fit(y)
            self.classes_ = self._label_binarizer.classes_
            return X, y
        classes = unique_labels(y)
        if self.warm_start:
            if set(classes) != set(self.classes_):
                raise ValueError(
                    "warm_start can only be used where `y` has the same classes as in the previous call to fit."
                    f" Previously got {self.classes_}, `y` has {classes}"
                )
        elif len(np.setdiff1d(classes, self.classes_, assume_unique=True)):
            raise ValueError(
                f"`y` has classes not in `self.classes_`. `self.classes_` has {self.classes_}. 'y' has {classes}."
            )
        return X, y

    def _link_and_outputs(self, y: np.ndarray) -> tuple[str, int]:
        return targets.class_link(self._label_binarizer), targets.n_class_outputs(self._label_binarizer)

    def _encode(self, y: np.ndarray, dtype: np.dtype) -> np.ndarray:
        return targets.encode_classes(self._label_binarizer, y, dtype)

    def _decode(self, output: np.ndarray) -> np.ndarray:
        return targets.decode_classes(self._label_binarizer, output)

    def _stratify(self, y: np.ndarray) -> np.ndarray | None:
        # scikit-learn stratifies where there is one output (two classes, not more), by the encoded y as text
        return self._label_binarizer.transform(y).ravel().astype(bool).astype(str) if self.n_outputs_ == 1 else None

    def _score(self, output: np.ndarray, y: np.ndarray, sample_weight: np.ndarray | None) -> float:
        return accuracy_score(y, self._decode(output), sample_weight=sample_weight)

    @available_if(_has_partial_fit)
    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None, classes: Any = None) -> Self:
        """Train for one epoch, going on from the present weights and optimizer.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
        y : array-like of shape (n_samples,) or (n_samples, n_labels)
        sample_weight : array-like of shape (n_samples,), default=None
        classes : array-like of shape (n_classes,), default=None
            All classes that any call will bring; needed in the first one.

        Returns
        -------
        self : object
        """
        if _check_partial_fit_first_call(self, classes):
            self._label_binarizer = LabelBinarizer()
            self._label_binarizer.fit(y if type_of_target(y).startswith("multilabel") else classes)
        return self._fit(X, y, sample_weight=sample_weight, incremental=True)

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probability of each class (or label).

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            Columns in the order of ``classes_``; rows sum to one, except for multilabel targets.
        """
        proba = self._outputs_of(X)
        if self.n_outputs_ > 1:
            return proba
        both = np.empty((len(proba), 2), dtype=proba.dtype)
        both[:, 1:] = proba
        np.subtract(1, proba, out=both[:, :1])
        return both

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """Logarithm of :meth:`predict_proba`.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
        """
        proba = self.predict_proba(X)
        return np.log(proba, out=proba)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags


@_document
class MLPRegressor(RegressorMixin, _BaseMLP):
    """Multi-layer perceptron regressor for one or several outputs: squared error, or Poisson deviance on a log link.

    Drop-in for :class:`sklearn.neural_network.MLPRegressor`: for the same parameters and ``random_state`` the same
    weights, up to rounding.

    Parameters
    ----------
    loss : {'squared_error', 'poisson'}, default='squared_error'
        Half the squared error, or half the Poisson deviance with exponential output (for ``y >= 0``).

    %(parameters)s

    Attributes
    ----------
    %(attributes)s

    References
    ----------
    Rumelhart, Hinton and Williams (1986), Learning representations by back-propagating errors.
    Kingma and Ba (2014), Adam: a method for stochastic optimization, arXiv:1412.6980.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from sklearn.preprocessing import scale
    >>> from fastmlp import MLPRegressor
    >>> X, y = load_diabetes(return_X_y=True)
    >>> reg = MLPRegressor(hidden_layer_sizes=(32,), learning_rate_init=0.01, max_iter=500, random_state=0)
    >>> reg.fit(scale(X), scale(y)).score(scale(X), scale(y)) > 0.5
    True
    """

    _parameter_constraints: ClassVar[dict] = {
        **_BaseMLP._parameter_constraints,
        "loss": [StrOptions({"squared_error", "poisson"})],
    }

    def __init__(
        self,
        loss: str = "squared_error",
        hidden_layer_sizes: Any = (100,),
        activation: str = "relu",
        *,
        solver: str = "adam",
        alpha: float = 0.0001,
        batch_size: int | str = "auto",
        learning_rate: str = "constant",
        learning_rate_init: float = 0.001,
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: bool = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: float = 10,
        max_fun: int = 15000,
        backend: str = "auto",
        n_jobs: int | None = None,
    ) -> None:
        self._store(locals())

    def _validate_input(self, X: Any, y: Any, incremental: bool, reset: bool) -> tuple[Any, Any]:
        X, y = validate_data(
            self,
            X,
            y,
            accept_sparse=["csr", "csc"],
            multi_output=True,
            y_numeric=True,
            dtype=(np.float64, np.float32),
            reset=reset,
        )
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        return X, y

    def _link_and_outputs(self, y: np.ndarray) -> tuple[str, int]:
        return ("exp" if self.loss == "poisson" else "identity"), (1 if y.ndim == 1 else y.shape[1])

    def _encode(self, y: np.ndarray, dtype: np.dtype) -> np.ndarray:
        return targets.encode_values(y, dtype)

    def _decode(self, output: np.ndarray) -> np.ndarray:
        return output.ravel() if output.shape[1] == 1 else output

    def _stratify(self, y: np.ndarray) -> np.ndarray | None:
        return None

    def _score(self, output: np.ndarray, y: np.ndarray, sample_weight: np.ndarray | None) -> float:
        if not np.isfinite(output).all():
            return np.nan
        return r2_score(y, self._decode(output), sample_weight=sample_weight)

    # not only for stochastic solvers: scikit-learn's regressor, unlike its classifier, goes on with lbfgs too
    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train for one epoch, going on from the present weights and optimizer.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
        sample_weight : array-like of shape (n_samples,), default=None

        Returns
        -------
        self : object
        """
        return self._fit(X, y, sample_weight=sample_weight, incremental=True)
