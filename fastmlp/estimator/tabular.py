"""What the estimators for tables share: RealMLP's and TabM's way from a table to fitted weights, and to predictions.

The steps are those of base.py, except that the rows are split first::

    validate (tables) -> split -> code the columns of the training rows (preprocessing) -> Network -> first values
    (model/tabular_initialization) -> Task (training) -> views

Parameters that are None have the values of a recipe (recipes.py).  So ``fit`` trains a *member*: a copy of the
estimator whose parameters all have values.  The estimator then takes over what the member learned.  With `n_ens` or
`n_cv` there are several, trained side by side.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from sklearn.utils.validation import check_is_fitted

from fastmlp.data import coded_rows
from fastmlp.data.shared_rows import SharedRows
from fastmlp.data.warned import Warned, kept, warn_once_each
from fastmlp.engines import backends
from fastmlp.estimator import architecture, ensemble, tables, types
from fastmlp.estimator.base import BaseNetwork, Extras, fit_context
from fastmlp.estimator.parameters import activations_of, check_monitor
from fastmlp.estimator.prediction import Prediction
from fastmlp.model import stages
from fastmlp.model.initialization import random_state_of
from fastmlp.model.network import Network, check_precision
from fastmlp.preprocessing.coder import ColumnCoder
from fastmlp.sklearn_compat import _safe_indexing
from fastmlp.training.callbacks import check_callbacks
from fastmlp.training.given_sets import given_validation
from fastmlp.training.sklearn_callbacks import fit_task
from fastmlp.training.validation import Split, validation_split


class Coded(NamedTuple):
    """A table in numbers."""

    coder: ColumnCoder
    matrix: Any  # (n_rows, n_columns)
    split: Split | None


class BaseTabular(BaseNetwork):
    """Fit and predict tables."""

    # parameters of trainings that the recipes leave no choice about
    solver: Any = "adamw"
    alpha: ClassVar[float] = 0.0
    l1_ratio: ClassVar[float] = 0.0
    power_t: ClassVar[float] = 0.5
    shuffle: ClassVar[bool] = True
    warm_start: Any = False
    early_stopping: Any = True
    restore_best: Any = True
    batch_norm: ClassVar[bool] = False
    fit_intercept: Any = True
    frozen_layers: Any = None
    input_dropout: ClassVar[float] = 0.0
    patience_growth: Any = 0.0

    # parameters
    validation_fraction: float
    batch_size: Any
    categorical_features: Any
    dtype: Any
    matmul_precision: types.MatmulPrecision
    n_ens: int

    #: Matrices and the tables that they were made of, of a member in training.
    _tables: list[tuple[Any, Any]]

    # what a fit leaves, for type checkers
    coder_: ColumnCoder
    network_: Network
    target_range_: np.ndarray

    # --- what a model defines ----------------------------------------------------------------------------------------

    @abstractmethod
    def _recipe(self) -> Mapping[str, Any]:
        """Return the values of parameters that are None."""

    @abstractmethod
    def _coder(self, n_rows: int) -> ColumnCoder:
        """Return the coder of the columns for so many training rows, not fitted yet."""

    def _note_rows(self, n_rows: int) -> None:
        """Settle parameters that depend on the number of training rows: no batch has more."""
        self.batch_size = min(self.batch_size, n_rows)

    def _note_targets(self, y: np.ndarray) -> None:
        """Note what is to be known about the targets of the training rows."""

    # --- fit ---------------------------------------------------------------------------------------------------------

    @fit_context
    def fit(  # type: ignore[override] # first weights, and checkpoints, are of networks without a coder
        self,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        *,
        X_val: Any = None,
        y_val: Any = None,
        sample_weight_val: Any = None,
        eval_set: Any = None,
        communicator: Any = None,
    ) -> Self:
        """Fit the network to a table X and y.

        Parameters
        ----------
        X : table of shape (n_samples, n_features)
            Array of NumPy, frame of pandas or polars, or table of pyarrow. Columns of texts or categories, missing
            values and booleans are all right.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Class labels, or values to regress on.
        sample_weight : array-like of shape (n_samples,), default=None
            Weight of each row in the loss.
        X_val : table of shape (n_val, n_features), default=None
            Rows to validate on after each epoch, instead of a share `validation_fraction` of X.
        y_val : array-like of shape (n_val,) or (n_val, n_outputs), default=None
            Their targets.
        sample_weight_val : array-like of shape (n_val,), default=None
            Their weights.
        eval_set : tuple (X, y), list of such tuples, or dict of str to tuple, default=None
            Sets of rows to evaluate after each epoch, as for :meth:`fastmlp.MLPClassifier.fit`.
        communicator : Communicator or MPI communicator, default=None
            Of several processes that make this call together, each with rows of its own, as for
            :meth:`fastmlp.MLPClassifier.fit`. Columns are coded by what all training rows hold.

        Returns
        -------
        self : object
            The fitted estimator.

        Raises
        ------
        ValueError
            For invalid data or parameters, an unknown backend, or weights that diverged.
        TypeError
            For columns that are neither numbers nor categories.
        MemoryError
            If the layer sizes cannot fit this machine.
        CommunicationError
            If another rank fails, or does not answer in time.
        """
        validation = given_validation(X_val, y_val, sample_weight_val, eval_set)
        if ensemble.size(self) > 1:
            return self._fit_ensemble(X, y, sample_weight, Extras(validation, communicator=communicator))
        member = self._member()
        with fit_task(member, X, y, sample_weight, max_epochs=member.max_iter) as reporters:
            callbacks = (*(self.callbacks or ()), *reporters)
            extras = Extras(validation, callbacks=callbacks, communicator=communicator)
            member._fit(X, y, sample_weight, extras)
        self._take_over(member)
        return self

    def _member(self, **given: Any) -> Self:
        """Return a copy of the estimator, not fitted yet, whose parameters all have values."""
        member: Any = object.__new__(type(self))
        vars(member).update({name: value for name, value in vars(self).items() if not _is_fitted(name)})
        vars(member).update(dict(self._recipe()) | given)
        return member

    def _take_over(self, member: Any) -> None:
        """Take what a member learned, in place of what an earlier fit left."""
        own = {name: value for name, value in vars(self).items() if not _is_fitted(name)}
        _forget_training(member)
        self.__dict__ = own | {name: value for name, value in vars(member).items() if _is_fitted(name)}

    def _fit_ensemble(self, X: Any, y: Any, sample_weight: Any, extras: Extras) -> Self:
        """Train several networks; those of a split share its coder and its matrix."""
        ensemble.check(self, bool(extras.validation), (), None, extras.communicator)
        check_callbacks(self.callbacks or ())
        whole, random_state, heard = self._member(), random_state_of(self.random_state), list[Warned]()
        table, labels = whole._validated(X, y, reset=True)
        whole._learn_targets(labels, False)
        whole._note_targets(labels)
        seeds, members = ensemble.draw_seeds(self, random_state), list[ensemble.Member]()
        splits: list[Split | None] = [*ensemble.folds_of(self, labels, random_state)] if self.n_cv > 1 else []
        with kept(heard):  # what is wrong with the data is so for every network
            for split in splits or [whole._split(labels, extras, random_state)]:
                coded = whole._code(table, split, random_state)
                for seed in seeds[len(members) : len(members) + self.n_ens]:
                    member = self._member(n_ens=1, n_cv=1, random_state=seed, callbacks=None, _coded=coded)
                    task = member._task(X, y, sample_weight, extras)
                    assert task is not None, "rows without weight are refused"
                    members.append(ensemble.Member(task=task))
        warn_once_each(heard)
        ensemble.train(whole, members, labels, splits or [None], self.callbacks or ())
        for member in whole.estimators_:
            _forget_training(member)
        for name in ("out_activation_", "n_layers_", "n_outputs_"):
            setattr(whole, name, getattr(whole.estimators_[0], name))
        self._take_over(whole)
        return self

    def _check_parameters(self, extras: Extras) -> None:
        self._hidden_sizes()
        backends.get(self.backend)
        check_precision(self.matmul_precision, self.dtype)
        is_fold = getattr(vars(self).get("_coded"), "split", None) is not None
        if self.validation_fraction == 0 and not extras.validation and not is_fold:
            self.early_stopping, self.restore_best = False, None
        check_monitor(self, has_validation=self._has_validation(extras))

    def _validated(self, X: Any, y: Any, reset: bool) -> tuple[Any, Any]:
        return tables.validated_with_targets(self, X, y, reset)

    def _prepared(
        self, X: Any, y: np.ndarray, extras: Extras, random_state: np.random.RandomState
    ) -> tuple[Any, Split | None]:
        coded = self.__dict__.pop("_coded", None)
        if coded is None:
            coded = self._code(X, self._split(y, extras, random_state), random_state)
        self.coder_, matrix, split = coded
        self._tables = [(matrix, X)]
        y = y if split is None else y[split.rows]
        self._note_targets(y)
        self._note_rows(len(y))
        return matrix, split

    def _split(self, y: np.ndarray, extras: Extras, random_state: np.random.RandomState) -> Split | None:
        """Return the rows to train on and those to validate on; None if all are to train on."""
        if extras.validation or self.validation_fraction == 0:
            return None
        rows, held_out = validation_split(len(y), self.validation_fraction, random_state, self._stratify(y))
        return Split(rows, held_out, "held out for validation")

    def _code(self, X: Any, split: Split | None, random_state: np.random.RandomState) -> Coded:
        """Return what is learned about the columns of the training rows, and all rows in numbers."""
        rows = None if split is None else split.rows
        n_rows = tables.n_rows_of(X) if rows is None else len(rows)
        coder = coded_rows.fitted(self._coder(n_rows), X, rows, random_state)
        return Coded(coder, coded_rows.coded(coder, X, np.dtype(self.dtype)), split)

    def _matrix(self, X: Any) -> Any:
        matrix = coded_rows.coded(self.coder_, X, np.dtype(self.dtype))
        self._tables.append((matrix, X))
        return matrix

    def _shown_rows(self, X: Any, rows: np.ndarray | None) -> Any:
        if isinstance(X, SharedRows):
            return X
        table = next(table for matrix, table in self._tables if matrix is X)
        return table if rows is None else _safe_indexing(table, rows)

    def _network_to_train(self, X: Any, objective: Any, first_pass: bool) -> Network:
        blocks = self.coder_.blocks
        width = sum(block.width for block in blocks) if blocks else X.shape[1]
        hidden = self._hidden_sizes()
        self.network_ = Network(
            (width, *hidden, objective.n_outputs),
            activations_of(self.activation, len(hidden)),
            objective.loss,
            np.dtype(self.dtype),
            inputs=blocks,
            matmul_precision=self.matmul_precision,
            **self._shape(),
            **stages.options_of(self, len(hidden)),
        )
        return self.network_

    @abstractmethod
    def _shape(self) -> dict[str, Any]:
        """Return the fields of the network besides widths, activations, loss, inputs and options."""

    def _training_parameters(self) -> dict[str, Any]:
        return {"power_t": self.power_t, **super()._training_parameters()}

    def _hidden_sizes(self) -> list[int]:
        return architecture.hidden_sizes(self)

    # --- predict -----------------------------------------------------------------------------------------------------

    def _fitted_network(self) -> Network:
        return self.network_.plain

    def _outputs_of(self, X: Any, in_kind: bool = False) -> np.ndarray:
        check_is_fitted(self)
        X = tables.validated(self, X, reset=False)
        members = getattr(self, "estimators_", (self,))
        total: Any = 0
        for i, member in enumerate(members):
            if i == 0 or member.coder_ is not members[i - 1].coder_:
                matrix = member.coder_.transform(X, np.dtype(member.dtype))
            total = total + member._outputs_of_matrix(matrix) if i else member._outputs_of_matrix(matrix)
        return total if len(members) == 1 else total / len(members)

    def _outputs_of_matrix(self, matrix: np.ndarray) -> np.ndarray:
        """Return the outputs (n, n_outputs) of one network."""
        idle: list[Any] = self.__dict__.setdefault("_idle_predictions", [])
        prediction = idle.pop() if idle else None  # out of the list while in use: a concurrent call makes its own
        if prediction is None or not prediction.fits(self):
            prediction = Prediction(self)
        out = prediction.outputs(self, matrix)[0]
        idle.append(prediction)
        return out

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in super().__getstate__().items() if name != "_tables"}

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = False
        tags.input_tags.allow_nan = tags.input_tags.categorical = tags.input_tags.string = True
        return tags


def refuse_tables(estimator: Any, function: str) -> None:
    """Raise a TypeError about an estimator for tables, of which `function` would convert the network alone."""
    if isinstance(estimator, BaseTabular):
        raise TypeError(
            f"{function} takes MLPClassifier and MLPRegressor, got {type(estimator).__name__}: it codes the columns of"
            " tables before its network reads them, and has feature blocks; to_onnx exports, and save keeps, all of it"
        )


#: Private attributes that a fit leaves.
_FITTED = ("_training", "_label_binarizer", "_idle_predictions")


def _forget_training(member: Any) -> None:
    """Drop what only further training would need."""
    vars(member).pop("_tables", None)
    if "_training" in vars(member):
        member._training.optimizer = member._training.random_state = member._training.standardized = None


def _is_fitted(name: str) -> bool:
    """Return whether an attribute is what a fit leaves."""
    return name in _FITTED or (name.endswith("_") and not name.startswith("_"))
