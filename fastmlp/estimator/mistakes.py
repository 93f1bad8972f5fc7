"""Errors about arguments that the estimators do not have, or values that they do not take: what was probably meant.

scikit-learn's and Python's own errors keep their class and the beginning of their text. Arguments that are right pay
for one more call of Python.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from numbers import Rational, Real
from typing import Any, NoReturn, TypeVar

import numpy as np

from fastmlp.data.targets import CLASSIFIER_LOSSES, REGRESSOR_LOSSES
from fastmlp.model.spelling import meant
from fastmlp.sklearn_compat import StrOptions, validate_parameter_constraints

Class = TypeVar("Class", bound=type)
Method = TypeVar("Method", bound=Callable)

_LARGEST = int(sys.float_info.max)


# --- arguments --------------------------------------------------------------------------------------------------------


def explained(cls: Class) -> Class:
    """Let the constructor of a class say what an unknown argument was probably meant to be."""
    made: Any = cls.__init__  # type: ignore[misc]
    known = tuple(inspect.signature(made).parameters)[1:]

    @wraps(made)
    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        try:
            made(self, *args, **kwargs)
        except TypeError:
            unknown = [name for name in kwargs if name not in known]
            if unknown:
                _refuse_arguments(self, unknown)
            raise

    cls.__init__ = init  # type: ignore[misc]
    return cls


def _refuse_arguments(estimator: Any, unknown: Iterable[str]) -> NoReturn:
    cls, first = type(estimator).__name__, next(iter(unknown))
    valid = sorted(estimator._get_param_names())
    raise TypeError(
        f"{cls}.__init__() got an unexpected keyword argument {first!r}{_hints(unknown, valid)}"
        f" Valid arguments are: {valid}."
    ) from None


def about_parameters(estimator: Any, names: Iterable[str]) -> str:
    """Return a sentence about the first name that is no parameter of an estimator, or no text."""
    valid = estimator._get_param_names()
    found = next((meant(name, valid) for name in names if name not in valid), None)
    return "" if found is None else f" Did you mean {found!r}?"


def explained_call(method: Method) -> Method:
    """Let a method of an estimator name the estimator, and what it takes, in the error about an unknown argument."""
    known = tuple(inspect.signature(method).parameters)[1:]
    called = f"{method.__qualname__}()"

    @wraps(method)
    def checked(estimator: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return method(estimator, *args, **kwargs)
        except TypeError as error:
            name = f"{type(estimator).__name__}.{method.__name__}()"
            unknown = [argument for argument in kwargs if argument not in known]
            if unknown:
                raise TypeError(_about_arguments(estimator, name, unknown, known)) from None
            if str(error).startswith(called):  # one is missing, or there are too many
                raise TypeError(str(error).replace(called, name)) from None
            raise
        except OverflowError as error:
            given = estimator.get_params(deep=False) | dict(zip(known, args, strict=False)) | kwargs
            _refuse_too_large(given, error)
            raise

    return checked  # type: ignore[return-value]


def _about_arguments(estimator: Any, call: str, unknown: list[str], known: tuple[str, ...]) -> str:
    cls, first = type(estimator).__name__, unknown[0]
    parameters = type(estimator)._get_param_names()
    parameter = first if first in parameters else None
    if parameter is None and meant(first, known) is None:
        parameter = meant(first, parameters)
    where = f"; it belongs to the constructor: {cls}({parameter}=...)." if parameter else _hints([first], known)
    return f"{call} got an unexpected keyword argument {first!r}{where} Valid arguments are: {sorted(known)}."


def _hints(unknown: Iterable[str], valid: Iterable[str]) -> str:
    """Return what each unknown name was probably meant to be, as the rest of a sentence."""
    pairs = {name: meant(name, valid) for name in unknown}
    near = {name: known for name, known in pairs.items() if known is not None}
    if not near:
        return "."
    if len(pairs) == 1:
        return f"; did you mean {next(iter(near.values()))!r}?"
    return f"; did you mean {', '.join(f'{known!r} for {name!r}' for name, known in near.items())}?"


# --- values -----------------------------------------------------------------------------------------------------------


def check_values(estimator: Any, given: Mapping[str, Any]) -> None:
    """Raise scikit-learn's InvalidParameterError, a ValueError and TypeError, for a value that no fit would take."""
    _refuse_too_large(given)
    constraints, cls = estimator._parameter_constraints, type(estimator).__name__
    try:
        validate_parameter_constraints(constraints, given, caller_name=cls)
    except ValueError as error:
        found = re.match(r"The '(\w+)' parameter", str(error))
        name = found[1] if found else ""
        text = _about_value(name, given.get(name), constraints.get(name, ()))
        if not text:
            raise
        raise type(error)(f"{error} {text}") from None


def _about_value(name: str, value: Any, allowed: Iterable[Any]) -> str:
    """Return a sentence about a value that a parameter does not take, or no text."""
    if isinstance(value, str):
        options = [option for entry in allowed if isinstance(entry, StrOptions) for option in entry.options]
        found = meant(value, options)
        if found is not None:
            return f"Did you mean {found!r}?"
    if name == "loss":
        for cls, losses in (("MLPClassifier", CLASSIFIER_LOSSES), ("MLPRegressor", REGRESSOR_LOSSES)):
            found = meant(value, losses)
            if found is not None:
                return f"{found!r} is a loss of {cls}."
    return next((text for of, fits, text in _OTHER_VALUES if of in (name, "") and fits(value)), "").format(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _is_text_of_number(value: Any) -> bool:
    try:
        return isinstance(value, str) and float(value) is not None
    except ValueError:
        return False


#: (parameter, "" for any; whether a value is so; what to do about it), the first that fits.
_OTHER_VALUES: tuple[tuple[str, Callable[[Any], bool], str], ...] = (
    ("learning_rate", _is_number, "A number is learning_rate_init={0!r}; learning_rate names its schedule."),
    ("learning_rate", _is_text_of_number, "A number is learning_rate_init={0}; learning_rate names its schedule."),
    (
        "activation",
        lambda value: isinstance(value, str) and value.lower() in ("softmax", "log_softmax", "logsoftmax"),
        "Hidden layers do not have it; that of the output layer follows from loss.",
    ),
    ("activation", callable, "fastmlp.activation makes an activation of a function."),
    ("loss", callable, "fastmlp.loss makes a loss of a function."),
    ("solver", callable, "A solver is a name, or a name with parameters: ('adam', {{'beta_1': 0.8}})."),
    ("callbacks", callable, "Write callbacks=[...], a list."),
    ("random_state", lambda value: isinstance(value, np.random.Generator), "Draw an int: int(rng.integers(2**32))."),
    ("early_stopping", lambda value: isinstance(value, str), "What it watches is the parameter monitor."),
    ("", _is_text_of_number, "Write {0}, without quotes."),
    ("", lambda value: isinstance(value, float) and value.is_integer(), "Write {0:.0f}, an int."),
)


def _refuse_too_large(given: Mapping[str, Any], error: BaseException | None = None) -> None:
    """Refuse numbers that no float can hold, also within sequences and pairs; their digits are not printed."""
    for name, value in given.items():
        # most parameters are floats, bools and texts, of which the largest is a float
        if isinstance(value, int | tuple | list | dict | np.ndarray | Rational) and _is_too_large(value):
            raise ValueError(f"{name} holds a number beyond the range of float64, {_LARGEST:.3g}") from error


def _is_too_large(value: Any) -> bool:
    if isinstance(value, int):
        return not -_LARGEST <= value <= _LARGEST
    if isinstance(value, np.ndarray):
        return value.dtype == object and any(map(_is_too_large, value.flat))
    if isinstance(value, tuple | list):
        return any(map(_is_too_large, value))
    if isinstance(value, dict):
        return any(map(_is_too_large, value.values()))
    number: Any = value  # to mypy, a Rational cannot be compared
    return isinstance(value, Rational) and abs(number) > _LARGEST
