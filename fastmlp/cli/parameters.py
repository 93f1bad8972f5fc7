"""The estimators' parameters as options of `fastmlp train`, made from their signatures and documentation.

A value is JSON if it can be read as JSON, else a text: ``--activation elu``, ``--dropout 0.2``,
``--activation '["elu", {"alpha": 0.5}]'``, ``--solver '["rmsprop", {"rho": 0.9}]'``, ``--shuffle 4096``. A parameter
that is true or false and nothing else is a flag, ``--drop-last`` and ``--no-drop-last``. The estimators check the
values, not this module.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, get_type_hints

import typer

PANEL = "Network and training"

#: Parameters with an option of another form, and parameters that make no sense in a shell.
LEFT_OUT = (
    *("hidden_layer_sizes", "validation_fraction", "callbacks", "verbose", "warm_start", "standardize_y"),
    *("dtype", "categorical_features"),
)

#: The networks that `--model` names; the first is the default.
MODELS = ("mlp", "realmlp", "tabm")


def estimators(model: str = MODELS[0]) -> dict[str, type]:
    """Return the estimator of each task."""
    from fastmlp import estimators, tabular_estimators

    of_model: dict[str, tuple[type, type]] = {
        "mlp": (estimators.MLPClassifier, estimators.MLPRegressor),
        "realmlp": (tabular_estimators.RealMLPClassifier, tabular_estimators.RealMLPRegressor),
        "tabm": (tabular_estimators.TabMClassifier, tabular_estimators.TabMRegressor),
    }
    return dict(zip(("classification", "regression"), of_model[model], strict=True))


def with_parameters(command: Callable[..., None]) -> Callable[..., None]:
    """Add an option for each parameter of the estimators to a command; it gets the given ones as `parameters`."""
    options = _options()

    def generated(**given: Any) -> None:
        chosen = {name: value_of(given.pop(name)) for name in options if given.get(name) is not None}
        command(**{name: value for name, value in given.items() if name not in options}, parameters=chosen)

    signature = inspect.signature(command)
    hints = get_type_hints(command, include_extras=True)
    own = [p.replace(annotation=hints[name]) for name, p in signature.parameters.items() if name != "parameters"]
    generated.__signature__ = signature.replace(parameters=[*own, *options.values()])  # type: ignore[attr-defined]
    generated.__annotations__ = {p.name: p.annotation for p in (*own, *options.values())}
    generated.__doc__, generated.__name__ = command.__doc__, command.__name__
    return generated


def value_of(text: Any) -> Any:
    """Return the value of an option: JSON if it can be read so, else the text itself.

    Examples
    --------
    >>> [value_of(text) for text in ("0.5", "adam", '["elu", {"alpha": 0.5}]', "inf")]
    [0.5, 'adam', ['elu', {'alpha': 0.5}], inf]
    """
    if not isinstance(text, str):
        return text
    try:
        return json.loads(text, parse_constant=_no_constant)
    except ValueError:
        return float("inf") if text == "inf" else text


def checked(model: str, task: str, parameters: Mapping[str, Any]) -> None:
    """Refuse constructor arguments that no fit would take, before any data is read.

    With the task "auto" one of the two estimators must take them. The ValueError names the parameter, its value and
    what is allowed.
    """
    errors = []
    for name, cls in estimators(model).items():
        if task in ("auto", name):
            try:
                _check(cls, parameters)
                return
            except (TypeError, ValueError) as error:
                errors.append(error)
    raise errors[0]


def made(model: str, task: str, parameters: Mapping[str, Any]) -> Any:
    """Return the estimator of a task, unfitted, from arguments that :func:`checked` would accept."""
    cls = estimators(model)[task]
    _check(cls, parameters)
    return cls(**parameters)


def has_linear_output(estimator: Any) -> bool:
    """Return whether a regressor's output is its last layer's, so that a scale can go into its weights."""
    from fastmlp.data.targets import resolve_loss

    if not hasattr(estimator, "standardize_y"):  # it scales targets anyway
        return False
    return resolve_loss("regression", estimator.loss, 1).link == "identity"


def _check(cls: Any, parameters: Mapping[str, Any]) -> None:
    from fastmlp.data.targets import resolve_loss
    from fastmlp.estimator.parameters import activations_of, check_lbfgs
    from fastmlp.model import choices
    from fastmlp.model.stages import options_of
    from fastmlp.training.schedules import SCHEDULES, make_share

    known = cls._get_param_names()
    for name in parameters:
        if name not in known:
            raise ValueError(f"{cls.__name__} has no parameter {name!r}")
    estimator = cls(**parameters)
    estimator._validate_params()
    if "MLPClassifier" != cls.__name__ != "MLPRegressor":
        return  # what else there is to refuse depends on the recipe: fit does it
    hidden = estimator._hidden_sizes()
    activations_of(estimator.activation, len(hidden))
    options_of(estimator, len(hidden))
    choices.entry(SCHEDULES, estimator.learning_rate, "learning_rate")
    for name in ("weight_decay_schedule", "dropout_schedule"):
        make_share(getattr(estimator, name), name)
    task = "regression" if cls is estimators()["regression"] else "multiclass"
    resolve_loss(task, estimator.loss, 1 if task == "regression" else 3)
    if choices.name_of(estimator.solver) == "lbfgs":
        check_lbfgs(estimator, validation=False, resumes=False)


def _options() -> dict[str, inspect.Parameter]:
    """Return an optional keyword per parameter; None means that it was not given."""
    found: dict[str, inspect.Parameter] = {}
    defaults = _defaults()
    for cls in (cls for model in MODELS for cls in estimators(model).values()):
        texts = _texts(cls.__doc__ or "")
        for name in inspect.signature(cls).parameters:
            if name in LEFT_OUT or name in found:
                continue
            dashed = f"--{name.replace('_', '-')}"
            if _is_flag(cls, name):
                option = typer.Option(f"{dashed}/--no-{dashed[2:]}", help=texts[name], rich_help_panel=PANEL)
                type_: Any = Annotated[bool | None, option]
            else:
                names = _names(cls, name)
                one_of = f" One of {', '.join(names)}, or what docs/options.md says." if names else ""
                option = typer.Option(
                    dashed,
                    help=texts[name] + one_of + defaults[name],
                    rich_help_panel=PANEL,
                    metavar="VALUE",
                    autocompletion=_completion(names) if names else None,
                )
                type_ = Annotated[str | None, option]
            found[name] = inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=type_)
    return found


def _defaults() -> dict[str, str]:
    """Return a text about the default of each parameter, of each model that has another one."""
    found: dict[str, dict[str, Any]] = {}
    for model in MODELS:
        for name, parameter in inspect.signature(estimators(model)["classification"]).parameters.items():
            found.setdefault(name, {})[model] = parameter.default
        for name, parameter in inspect.signature(estimators(model)["regression"]).parameters.items():
            found.setdefault(name, {}).setdefault(model, parameter.default)
    texts = {}
    for name, of_model in found.items():
        known = {model: value for model, value in of_model.items() if value is not None}
        if len(of_model) == len(MODELS) and len(set(map(repr, known.values()))) == 1 == len(MODELS) - len(known) + 1:
            texts[name] = f" [default: {next(iter(known.values()))}]"
        else:
            texts[name] = "".join(f" [{model}: {value}]" for model, value in known.items())
    return texts


def _is_flag(cls: Any, parameter: str) -> bool:
    """Return whether a parameter may be true and false, and nothing else but not given."""
    allowed = cls._parameter_constraints[parameter]
    return "boolean" in allowed and all(entry in ("boolean", None) for entry in allowed)


def _names(cls: Any, parameter: str) -> list[str]:
    """Return the names that a parameter may have, sorted, behind true and false if it may be these."""
    from fastmlp.sklearn_compat import StrOptions

    allowed = cls._parameter_constraints[parameter]
    truths = ["true", "false"] if "boolean" in allowed else []
    return truths + sorted(name for entry in allowed if isinstance(entry, StrOptions) for name in entry.options)


def _completion(names: list[str]) -> Callable[[str], list[str]]:
    def starting_with(incomplete: str) -> list[str]:
        return [name for name in names if name.startswith(incomplete)]

    return starting_with


def _texts(documentation: str) -> dict[str, str]:
    """Return the first sentence about each parameter of a numpydoc text."""
    section = inspect.cleandoc(documentation).split("Parameters\n----------\n", 1)[1].split("\nAttributes\n---", 1)[0]
    entries = re.findall(r"^(\w[\w, ]*) : (?:.*\\\n)?.*\n((?:(?:    .*)?\n)+)", section + "\n", re.MULTILINE)
    texts = {name: " ".join(text.split()) for names, text in entries for name in names.split(", ")}
    return {name: _first_sentence(text) for name, text in texts.items()}


def _first_sentence(text: str) -> str:
    # what follows a colon outside of parentheses is detail
    return re.split(r"\. |[:;] (?![^(]*\))", text, maxsplit=1)[0].rstrip(".") + "."


def _no_constant(name: str) -> float:
    raise ValueError(name)
