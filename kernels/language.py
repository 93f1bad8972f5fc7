"""The formula language: activations and losses of the user's own.

Where it sits: :func:`activation` and :func:`loss` turn a Python function into a :class:`Formula`, which stands wherever
an activation's or a loss's name does.  The function is never run: its source text is read (syntax.py), differentiated
(derivative.py) and compiled to a register program (program.py) that every engine runs over blocks of numbers, without
the GIL.  A formula is its text and the numbers captured with it, so pickle, clone and worker processes carry no code.

The language is that of formulas.py: assignments and one return, ``+ - * /``, numbers, ``a if x < y else b`` with one
comparison, and the functions exp expm1 log log1p tanh erf sqrt abs; here also ``minimum(a, b)`` and ``maximum(a, b)``.
A name from outside the function must be a number; it is captured by value when the formula is made.  Everything else
is a :class:`FormulaError` that names file and line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np

from fastmlp.kernels.codegen import FormulaError
from fastmlp.kernels.derivative import Derivative
from fastmlp.kernels.graph import OPS, Graph, TooLong
from fastmlp.kernels.program import Program, compile_node, reads, run, source_of
from fastmlp.kernels.syntax import Reader, Text, check_names

__all__ = [
    "LINKS",
    "OPS",
    "ActivationFormula",
    "Formula",
    "FormulaError",
    "LossFormula",
    "Program",
    "activation",
    "loss",
    "program_of",
    "run",
]


def _read(text: Text, graph: Graph, what: str, operands: Sequence[int]) -> int:
    """The value of a formula of as many arguments as there are operands."""
    arguments, tree = text.arguments, text.tree
    plain = not (tree.args.vararg or tree.args.kwarg or tree.args.kwonlyargs or tree.args.defaults)
    if len(arguments) != len(operands) or not plain:
        raise text.error(tree, f"{what} takes {len(operands)} argument{'s' * (len(operands) > 1)} and no others")
    check_names(text)
    return Reader(text, graph, {}).read(**dict(zip(arguments, operands, strict=True)))


@contextmanager
def _building(text: Text, what: str) -> Iterator[None]:
    """Errors that know no formula become errors about this one."""
    try:
        yield
    except TooLong as error:
        raise text.error(text.tree, f"{what} is too long, {error}") from None
    except RecursionError:
        raise text.error(text.tree, f"{what} is too deeply nested") from None


def program_of(
    function: Callable,
    arguments: Sequence[str] | None = None,
    parameters: Mapping[str, float] | None = None,
    helpers: Iterable[Callable] = (),
) -> Program:
    """The program of any formula, such as those of formulas.py.

    Parameters
    ----------
    function : callable
        In the formula language.
    arguments : sequence of str, optional
        The arguments that registers 0, 1, ... hold; by default all that are not parameters.
    parameters : mapping of str to float, optional
        Values of arguments, or of names outside the function, that become constants.
    helpers : iterable of callable
        Formulas that this one may call by name, as ``formulas.HELPERS``.

    Raises
    ------
    FormulaError
        If the function is outside the language or too long.

    Examples
    --------
    >>> from fastmlp.kernels import formulas
    >>> from fastmlp.kernels.language import program_of, run
    >>> program = program_of(formulas.hyperbolic_tangent_slope)
    >>> float(run(program, 0.0, 0.5))
    0.75
    """
    text, graph = Text.of(function), Graph()
    parameters = dict(parameters or {})
    if arguments is None:
        arguments = [name for name in text.arguments if name not in parameters]
    operands = {name: graph.input(i) for i, name in enumerate(arguments)}
    operands |= {name: graph.constant(value) for name, value in parameters.items()}
    check_names(text)
    missing = [name for name in text.arguments if name not in operands]
    if missing:
        raise text.error(text.tree, f"arguments without a value: {', '.join(missing)}")
    texts = {helper.__name__: Text.of(helper) for helper in helpers}
    with _building(text, "this formula"):
        return compile_node(graph, Reader(text, graph, texts).read(**operands), len(arguments))


# --- formulas -------------------------------------------------------------------------------------------------------


class Formula:
    """A user's activation or loss: immutable, equal to another of the same text, with the same captured numbers.

    Made by :func:`activation` and :func:`loss`, or from text by :meth:`from_source`.

    Attributes
    ----------
    name : str
        Of the function.
    source : str
        Its text, dedented and without decorators.
    constants : dict of str to float
        Numbers that it captured from outside.
    """

    #: Kind of program -> names of its inputs, in the order of registers; the first is what a call evaluates.
    kinds: ClassVar[Mapping[str, tuple[str, ...]]]
    _state: tuple  # what makes an equal formula: its type's arguments
    _programs: dict[str, Program]

    def __init__(self, state: tuple, programs: dict[str, Program]) -> None:
        object.__setattr__(self, "_state", state)
        object.__setattr__(self, "_programs", programs)

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError("a formula is immutable")

    def __delattr__(self, name: str) -> None:
        raise AttributeError("a formula is immutable")

    @staticmethod
    def from_source(
        source: str,
        *,
        constants: Mapping[str, float] | None = None,
        slope: str | None = None,
        link: str = "identity",
    ) -> Formula:
        """Make a formula from its text: a function of z is an activation, one of (y, p) a loss.

        Parameters
        ----------
        source : str
            One function, ``def name(...): ...``.
        constants : mapping of str to float, optional
            Values of the names that are not arguments.
        slope : str, optional
            Of an activation: text of a function of (z, a).
        link : {"identity", "exp", "logistic"}
            Of a loss.

        Raises
        ------
        FormulaError
            If the text is outside the formula language.
        ValueError
            If there is no such link, or if a loss is given a slope.

        Examples
        --------
        >>> from fastmlp.kernels.language import Formula
        >>> Formula.from_source("def scaled(z): return c * tanh(z)", constants={"c": 1.7})
        <activation scaled(z), c=1.7>
        """
        text = Text.of(source, constants)
        if len(text.arguments) != 2:
            return ActivationFormula(text, None if slope is None else Text.of(slope, constants))
        if slope is not None:
            raise ValueError("a loss takes no slope: it is derived from the formula")
        return LossFormula(text, link)

    @property
    def name(self) -> str:
        return self._state[0].name

    @property
    def source(self) -> str:
        return self._state[0].source

    @property
    def constants(self) -> dict[str, float]:
        return dict(self._state[0].constants)

    def program(self, kind: str) -> Program:
        """The register program of this kind; which there are, ``kinds`` says.

        Of an activation: "value" of z, "slope" of (z, a). Of a loss: "value" and "delta" of (y, z) with the logit z,
        and "formula" of (y, p).
        """
        if kind not in self._programs:
            raise ValueError(f"kind={kind!r} is unknown; valid are {list(self._programs)}")
        return self._programs[kind]

    def program_source(self, kind: str) -> str:
        """Write the program as a function in the formula language, to read or to compile.

        Examples
        --------
        >>> import fastmlp
        >>> @fastmlp.activation
        ... def cube(z): return z * z * z
        >>> print(cube.program_source("slope"))
        def cube_slope(z, a):
            t0 = z * z
            t1 = z * 2.0
            t2 = z * t1
            t3 = t0 + t2
            return t3
        <BLANKLINE>
        """
        return source_of(self.program(kind), f"{self.name}_{kind}", self.kinds[kind])

    def __call__(self, *inputs: Any) -> Any:
        """The formula's value for numbers or arrays."""
        kind, names = next(iter(self.kinds.items()))
        if len(inputs) != len(names):
            raise TypeError(f"{self!r} takes {len(names)} argument{'s' * (len(names) > 1)}, got {len(inputs)}")
        out = run(self.program(kind), *inputs)
        if out.ndim:
            return out
        return out[()] if any(isinstance(x, np.ndarray | np.generic) for x in inputs) else out.item()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Formula) and type(self) is type(other) and self._state == other._state

    def __hash__(self) -> int:
        return hash((type(self).__name__, self._state))

    def __reduce__(self) -> tuple:
        return type(self), self._state

    def __copy__(self) -> Formula:
        return self

    def __deepcopy__(self, memo: dict) -> Formula:
        return self

    def _repr(self, kind: str, *others: str) -> str:
        text: Text = self._state[0]
        constants = [f"{name}={value:g}" for name, value in text.constants]
        return f"<{kind} {', '.join([text.signature, *constants, *others])}>"


class ActivationFormula(Formula):
    """A user's activation a = f(z) with its slope.

    Attributes
    ----------
    needs_z : bool
        Whether the slope reads z; if not, z need not be kept for the backward pass.
    """

    kinds: ClassVar = {"value": ("z",), "slope": ("z", "a")}

    def __init__(self, text: Text, slope: Text | None = None) -> None:
        graph = Graph()
        z, a = graph.input(0), graph.input(1)
        with _building(text, "this activation"):
            value = _read(text, graph, "an activation", [z])
            programs = {"value": compile_node(graph, value)}
        if slope is None:
            with _building(text, "the slope derived from this activation"):
                derived = Derivative(graph, z)(value)
                if value != z and graph.value(value) is None:
                    derived = graph.replace(derived, value, a)  # what is known need not be computed again
                programs["slope"] = compile_node(graph, derived)
        else:
            with _building(slope, "this slope"):
                programs["slope"] = compile_node(graph, _read(slope, graph, "a slope", [z, a]))
        super().__init__((text, slope), programs)

    @property
    def needs_z(self) -> bool:
        return reads(self.program("slope"), 0)

    def numpy_value(self, z: np.ndarray) -> np.ndarray:
        """a = f(z), in the dtype of z."""
        return run(self.program("value"), z)

    def numpy_slope(self, z: np.ndarray, a: np.ndarray) -> np.ndarray:
        """da/dz where a = f(z), in the dtype of both."""
        return run(self.program("slope"), z, a)

    def __repr__(self) -> str:
        slope = self._state[1]
        return self._repr("activation", *([] if slope is None else [f"slope={slope.signature}"]))


def _identity(graph: Graph, z: int) -> int:
    return z


def _exp(graph: Graph, z: int) -> int:
    return graph.apply("exp", z)


def _logistic(graph: Graph, z: int) -> int:
    return graph.apply("div", graph.one, graph.apply("add", graph.one, graph.apply("exp", graph.apply("neg", z))))


#: Link of a user's loss -> prediction p from the logit z; the names are those of ACTIVATIONS.
LINKS: dict[str, Callable[[Graph, int], int]] = {"identity": _identity, "exp": _exp, "logistic": _logistic}


class LossFormula(Formula):
    """A user's loss f(y, p) of one target and one prediction p = link(z), with its slope by the logit z.

    Attributes
    ----------
    link : {"identity", "exp", "logistic"}
        How the output layer turns logits into predictions.
    """

    kinds: ClassVar = {"formula": ("y", "p"), "value": ("y", "z"), "delta": ("y", "z")}

    def __init__(self, text: Text, link: str = "identity") -> None:
        if not isinstance(link, str) or link not in LINKS:
            raise ValueError(f"link={link!r} is unknown; valid are {list(LINKS)}")
        graph = Graph()
        y, z = graph.input(0), graph.input(1)
        with _building(text, "this loss"):
            value = _read(text, graph, "a loss", [y, LINKS[link](graph, z)])
            programs = {
                "formula": compile_node(graph, _read(text, graph, "a loss", [y, z])),
                "value": compile_node(graph, value),
            }
        with _building(text, "the slope derived from this loss"):
            programs["delta"] = compile_node(graph, Derivative(graph, z)(value))
        super().__init__((text, link), programs)

    @property
    def link(self) -> str:
        return self._state[1]

    def numpy_value(self, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        """The loss of each target and logit, in the dtype of both."""
        return run(self.program("value"), y, z)

    def numpy_delta(self, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        """d loss / d logit, in the dtype of both."""
        return run(self.program("delta"), y, z)

    def __repr__(self) -> str:
        return self._repr("loss", *([] if self.link == "identity" else [f"link={self.link!r}"]))


# --- decorators -----------------------------------------------------------------------------------------------------


def activation(f: Callable | str | None = None, *, slope: Callable | str | None = None) -> Any:
    """Make an activation of one's own from a function of z, as a decorator or by a call.

    Parameters
    ----------
    f : callable or str
        The activation a = f(z): a function in the formula language, or its text (``def ...``).
    slope : callable or str, optional
        Its slope da/dz as a function of (z, a); derived from the formula if left out.

    Returns
    -------
    ActivationFormula
        For the parameter ``activation`` of an estimator. Called with numbers or arrays it gives their values.

    Raises
    ------
    FormulaError
        If a function is outside the formula language; the message names file and line. It is a SyntaxError.

    Notes
    -----
    The language: assignments and one return; ``+ - * /``; numbers; ``a if x < y else b`` with one comparison; the
    functions exp, expm1, log, log1p, tanh, erf, sqrt, abs, minimum and maximum by these names, imported or not. Names
    from outside must be numbers; their values are those at decoration. A comparison with NaN is false, so let NaN pass
    through ``else``.

    The slope follows the formula as it is written, as in every automatic differentiation: a conditional expression
    has the slope of the branch that it takes, abs and the kinks of minimum and maximum with a constant have slope 0.

    Examples
    --------
    >>> import fastmlp
    >>> @fastmlp.activation
    ... def swish(z):
    ...     return z / (1 + exp(-z))
    >>> swish
    <activation swish(z)>
    >>> swish(0.0), swish(2.0)
    (0.0, 1.7615941559557646)

    With a slope, which may use the activation's value a:

    >>> def squash_slope(z, a):
    ...     return (1 - abs(a)) * (1 - abs(a))
    >>> @fastmlp.activation(slope=squash_slope)
    ... def squash(z):
    ...     return z / (1 + abs(z))
    >>> squash
    <activation squash(z), slope=squash_slope(z, a)>
    """

    def decorate(f: Callable | str) -> ActivationFormula:
        return ActivationFormula(Text.of(f), None if slope is None else Text.of(slope))

    return decorate if f is None else decorate(f)


def loss(f: Callable | str | None = None, *, link: str = "identity") -> Any:
    """Make a loss of one's own from a function of a target y and a prediction p, as a decorator or by a call.

    Parameters
    ----------
    f : callable or str
        The loss f(y, p) of one target: a function in the formula language (see :func:`activation`), or its text.
        Rows with several outputs have the sum. For a classifier y is 1 for the class or label of an output, else 0.
    link : {"identity", "exp", "logistic"}
        How predictions come from the output layer: p = z, exp(z) or 1 / (1 + exp(-z)). Training goes by the
        derivative with respect to z.

    Returns
    -------
    LossFormula
        For the parameter ``loss`` of an estimator. Called with numbers or arrays it gives their values.

    Raises
    ------
    FormulaError
        If the function is outside the formula language; the message names file and line. It is a SyntaxError.
    ValueError
        If there is no such link.

    Examples
    --------
    >>> import fastmlp
    >>> @fastmlp.loss
    ... def cauchy(y, p):
    ...     return log1p((y - p) * (y - p))
    >>> cauchy
    <loss cauchy(y, p)>
    >>> cauchy(3.0, 2.0)
    0.6931471805599453
    >>> import numpy as np
    >>> cauchy.numpy_delta(np.array([3.0, 3.0]), np.array([2.0, 4.0]))
    array([-1.,  1.])

    A deviance of positive numbers:

    >>> @fastmlp.loss(link="exp")
    ... def inverse_gaussian(y, p):
    ...     return (y - p) * (y - p) / (y * p * p)
    >>> inverse_gaussian
    <loss inverse_gaussian(y, p), link='exp'>
    """

    def decorate(f: Callable | str) -> LossFormula:
        return LossFormula(Text.of(f), link)

    return decorate if f is None else decorate(f)
