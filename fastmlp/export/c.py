"""Fitted networks as C: one C99 file that needs nothing but the C library's mathematics.

The last step of the C export: model.py reads the estimator, :func:`to_c` writes it. Formulas of activations are
translated from their programs, users' formulas like the built-in ones.
"""

from __future__ import annotations

import math
import os
import re
import textwrap
from collections import Counter
from typing import Any

import numpy as np

import fastmlp
from fastmlp.estimator.tabular import refuse_tables
from fastmlp.export.model import Layer, Model, Operation, activation_program, operations, read, write
from fastmlp.kernels.graph import SELECTS
from fastmlp.model import choices

#: The most bytes that the two layers in work may take on the stack; a thread may have as little as 512 KiB.
MOST_STACK = 256 * 1024

#: Keywords of C up to C23 and of C++, which are not valid names of functions.
KEYWORDS = re.compile(
    "alignas|alignof|and|asm|auto|bool|break|case|catch|char|class|const|constexpr|continue|default|delete|do|"
    "double|else|enum|explicit|export|extern|false|final|float|for|friend|goto|if|inline|int|long|namespace|new|"
    "noexcept|not|nullptr|operator|or|override|private|protected|public|register|restrict|return|short|signed|"
    "sizeof|static|struct|switch|template|this|thread_local|throw|true|try|typedef|typename|typeof|union|"
    "unsigned|using|virtual|void|volatile|wchar_t|while|xor"
)

_INFIX = {"add": "+", "sub": "-", "mul": "*", "div": "/"}


def _check_name(name: Any) -> None:
    if not isinstance(name, str) or not re.fullmatch("[A-Za-z][A-Za-z0-9_]*", name) or KEYWORDS.fullmatch(name):
        raise ValueError(
            f"name must be a C identifier that begins with a letter and is no keyword, such as 'model', got {name!r}"
        )


def to_c(estimator: Any, path: str | os.PathLike[str] | None = None, *, name: str = "model") -> str:
    """Convert a fitted estimator to one C99 file without dependencies.

    The file needs ``math.h`` and ``stddef.h`` only. With ``name="model"`` it has

    * ``MODEL_N_FEATURES``, and ``MODEL_N_CLASSES`` (labels, for multilabel targets) or ``MODEL_N_OUTPUTS``;
    * of a classifier ``model_predict_proba(X, n, out)``, with a hinge loss ``model_decision_function(X, n, out)``,
      and ``model_predict(X, n, out)``, which gives the index of each row's class as int, of which
      ``model_classes[index]`` is the label; for multilabel targets 0 or 1 for each label;
    * of a regressor ``model_predict(X, n, out)``, (n, n_outputs) values.

    X is (n, n_features) in C order, of float or double as the weights are. All memory is on the stack, and there is no
    global state: calls from several threads do not meet.

    Parameters
    ----------
    estimator : MLPClassifier or MLPRegressor
        Fitted.
    path : str or path-like, default=None
        File to write the text to as well, whole or not at all.
    name : str, default="model"
        What all names in the file begin with: a letter, then letters, digits and underscores.

    Returns
    -------
    str
        The file's text, in ASCII.

    Raises
    ------
    TypeError
        If it is not an estimator of this package, or labels are neither integers nor text.
    ValueError
        If the name is not a C identifier, or if two hidden layers need more than 256 KiB.
    OSError
        If the file cannot be written. An old one is as it was.
    sklearn.exceptions.NotFittedError

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from fastmlp import MLPClassifier
    >>> from fastmlp.export import to_c
    >>> X, y = load_iris(return_X_y=True)
    >>> clf = MLPClassifier((8,), solver="lbfgs", max_iter=50, random_state=0).fit(X, y)
    >>> text = to_c(clf, name="iris")
    >>> print("\\n".join(line for line in text.splitlines() if line.startswith("void")))
    void iris_predict_proba(const double *X, size_t n, double *out);
    void iris_predict(const double *X, size_t n, int *out);
    void iris_predict_proba(const double *X, size_t n, double *out)
    void iris_predict(const double *X, size_t n, int *out)
    """
    _check_name(name)
    refuse_tables(estimator, "to_c")
    model = read(estimator)
    if model.further:
        raise ValueError(
            f"to_c writes one network, this ensemble has {len(model.networks)}: convert each of estimators_, with a"
            " name of its own, and average what they return"
        )
    n_iter = getattr(estimator, "n_iter_", None)
    fitted = "" if n_iter is None else f", fitted with {choices.name_of(estimator.solver)} in {n_iter} iterations"
    text = _File(model, name).text(f"loss {model.loss}{fitted}")
    if path is not None:
        write(path, text.encode("ascii"))
    return text


class _File:
    """Writes the parts of one file."""

    def __init__(self, model: Model, name: str) -> None:
        self.model, self.name = model, name
        self.float = model.dtype == np.float32
        self.real = "float" if self.float else "double"
        self.n_features, self.n_outputs = model.widths[0], model.widths[-1]
        hidden = model.widths[1:-1]
        # layers take turns: the first, third, ... read what the second, fourth, ... have written, and the reverse
        turns = {"even": hidden[::2], "odd": hidden[1::2]}
        self.buffers = {turn: max(widths) for turn, widths in turns.items() if widths}
        self.stack = (sum(self.buffers.values()) + self.n_outputs) * model.dtype.itemsize
        if self.stack > MOST_STACK:
            raise ValueError(
                f"layers of {list(model.widths[1:])} neurons need {self.stack} bytes on the stack, to_c allows"
                f" {MOST_STACK}: two hidden layers and the outputs may have {MOST_STACK // model.dtype.itemsize}"
                f" of {self.real}"
            )

    def text(self, training: str) -> str:
        """Return the whole file."""
        parts = [self.comment(training), self.declarations()]
        parts += [array for i, layer in enumerate(self.model.layers) for array in self.weights(i, layer)]
        parts += [self.labels(), self.feature_names(), self.activations(), self.layer(), self.forward()]
        parts += self.functions()
        return "\n".join(part for part in parts if part)

    # --- head ---------------------------------------------------------------------------------------------------------

    def comment(self, training: str) -> str:
        model, upper = self.model, self.name.upper()
        names = [choices.name_of(layer.activation) for layer in model.layers[:-1]]
        hidden = [f" -> {width} {name}" for width, name in zip(model.widths[1:-1], names, strict=True)]
        n_weights = sum(layer.W.size + layer.b.size for layer in model.layers)
        paragraphs = [
            f"{self.name}: a fitted {model.estimator}, exported by fastmlp {fastmlp.__version__}.",
            f"{self.n_features} features{''.join(hidden)} -> {self.n_outputs} {model.link}; {n_weights} weights of "
            f"{self.real}; {training}.",
            "Compile it with cc -std=c99 -O3 -c, and link with -lm.",
            f"X is (n, {upper}_N_FEATURES), rows one behind the other; out is written. Rows are worked one by one;"
            f" layers take {self.stack} bytes of the stack. Nothing is allocated and there is no global state: calls"
            " from several threads do not meet.",
        ]
        lines = []
        for paragraph in paragraphs:
            lines += ["", *textwrap.wrap(paragraph.encode("ascii", "backslashreplace").decode(), 115)]
        return "\n".join([f"/* {lines[1]}", *(f" * {line}".rstrip() for line in lines[2:]), " */"])

    def declarations(self) -> str:
        """Return the sizes and prototypes, as in a header of this file."""
        upper, labels = self.name.upper(), self.model.labels
        lines = ["#include <math.h>", "#include <stddef.h>", "", f"#define {upper}_N_FEATURES {self.n_features}"]
        if self.model.task == "regression":
            lines += [f"#define {upper}_N_OUTPUTS {self.n_outputs}"]
        else:
            lines += [f"#define {upper}_N_CLASSES {self.n_outputs if labels is None else len(labels)}"]
        lines += ["", "/* Declarations: copy what is above and below into the files that call. */"]
        if labels is not None:
            lines += [f"extern {self.label_type()} {self.name}_classes[{upper}_N_CLASSES];"]
        if self.model.feature_names:
            lines += [f"extern const char *const {self.name}_feature_names[{upper}_N_FEATURES];"]
        return "\n".join([*lines, *(f"{self.signature(what)};" for what in self.methods()), ""])

    def methods(self) -> list[str]:
        """Return the names of the functions, after the estimator's methods."""
        if self.model.task == "regression":
            return ["predict"]
        return ["decision_function" if self.model.link == "identity" else "predict_proba", "predict"]

    def signature(self, method: str) -> str:
        integers = method == "predict" and self.model.task != "regression"
        out = "int" if integers else self.real
        return f"void {self.name}_{method}(const {self.real} *X, size_t n, {out} *out)"

    # --- constants ----------------------------------------------------------------------------------------------------

    def number(self, value: float) -> str:
        """Return a constant of the file's type, to the last bit."""
        with np.errstate(over="ignore"):
            value = float(self.model.dtype.type(value))
        if not math.isfinite(value):
            text = "NAN" if math.isnan(value) else "INFINITY" if value > 0 else "-INFINITY"
            return text if self.float else f"(double){text}"
        text = f"{value:.9g}" if self.float else f"{value:.17g}"
        text = text if "." in text or "e" in text else f"{text}.0"
        return f"{text}f" if self.float else text

    def weights(self, i: int, layer: Layer) -> list[str]:
        head, tables = f"static const {self.real} {self.name}", []
        for key, values in {"W": layer.W, "b": layer.b, **layer.learned}.items():
            shape = f"/* ({', '.join(map(str, values.shape))}) */\n" * (key == "W")
            numbers = [self.number(value) for value in values.ravel().tolist()]
            tables.append(shape + _table(f"{head}_{key}{i}", numbers))
        return tables

    def label_type(self) -> str:
        labels = self.model.labels
        return "const char *const" if labels is not None and labels.dtype == object else "const long long"

    def labels(self) -> str:
        """Return the table of class labels."""
        labels = self.model.labels
        if labels is None:
            return ""
        texts = [_text(label) if isinstance(label, str) else _integer(label) for label in labels.tolist()]
        return _table(f"{self.label_type()} {self.name}_classes", texts)

    def feature_names(self) -> str:
        texts = [_text(name) for name in self.model.feature_names]
        return _table(f"const char *const {self.name}_feature_names", texts) if texts else ""

    # --- functions ----------------------------------------------------------------------------------------------------

    def activations(self) -> str:
        """Return the activations and the link as functions of one number, each only once."""
        layers = self.model.layers
        self.symbols: list[str | None] = []  # of each layer; None: nothing to do
        written: dict[str, str] = {}
        for i, layer in enumerate(layers):
            if layer.activation in ("identity", "softmax"):
                self.symbols.append(None)
                continue
            body = self.activation_body(layer)
            if body not in written:
                kind = "link" if i == len(layers) - 1 else f"activation{i}"
                written[body] = f"{self.name}_{kind}"
            self.symbols.append(written[body])
        return "\n".join(f"static {self.real} {symbol}{body}" for body, symbol in written.items())

    def activation_body(self, layer: Layer) -> str:
        """Return the arguments and the body of the function that computes an activation."""
        inputs = ["z", *layer.learned]
        steps, output = operations(*activation_program(layer.activation))
        uses = Counter(x for step in steps for x in step.operands if isinstance(x, int))
        texts = list(inputs)
        lines: list[str] = []

        def operand(x: int | float) -> str:
            return texts[x] if isinstance(x, int) else self.number(x)

        for step in steps:
            text = self.expression(step, [operand(x) for x in step.operands])
            if uses[len(texts)] > 1:  # what is used once stands where it is used
                variable = f"t{len(lines)}"
                lines.append(f"const {self.real} {variable} = {_bare(text)};")
                text = variable
            texts.append(text)
        used = uses.keys() | {output}
        lines = [f"(void){name};" for i, name in enumerate(inputs) if i not in used] + lines
        body = "\n    ".join([*lines, f"return {_bare(operand(output))};"])
        arguments = ", ".join(f"{self.real} {name}" for name in inputs)
        return f"({arguments})\n{{\n    {body}\n}}\n"

    def expression(self, step: Operation, x: list[str]) -> str:
        """Return an operation on texts, in parentheses or a call."""
        if step.op in SELECTS:
            return f"({x[2]} {SELECTS[step.op]} {x[3]} ? {x[0]} : {x[1]})"
        if step.op in _INFIX:
            return f"({x[0]} {_INFIX[step.op]} {x[1]})"
        return f"(-{x[0]})" if step.op == "neg" else f"{self.function(step.op)}({_bare(x[0])})"

    def function(self, op: str) -> str:
        """Return the C library's name of a function."""
        return ("fabs" if op == "abs" else op) + ("f" if self.float else "")

    def layer(self) -> str:
        real = self.real
        arrays = f"const {real} *x, const {real} *W, const {real} *b, {real} *out"
        return f"""/* out (fan_out,) = x (fan_in,) W (fan_in, fan_out) + b */
static void {self.name}_layer(size_t fan_in, size_t fan_out, {arrays})
{{
    for (size_t j = 0; j < fan_out; j++)
        out[j] = b[j];
    for (size_t i = 0; i < fan_in; i++, W += fan_out)
        for (size_t j = 0; j < fan_out; j++)
            out[j] += x[i] * W[j];
}}
"""

    def forward(self) -> str:
        """Return the network for one row, the link included."""
        lines = [f"{self.real} {key}[{width}];" for key, width in self.buffers.items()]
        x = "x"
        for i, (layer, symbol) in enumerate(zip(self.model.layers, self.symbols, strict=True)):
            fan_in, fan_out = layer.W.shape
            out = "out" if i == len(self.model.layers) - 1 else ("even", "odd")[i % 2]
            lines.append(f"{self.name}_layer({fan_in}, {fan_out}, {x}, {self.name}_W{i}, {self.name}_b{i}, {out});")
            if symbol is not None:
                arguments = ", ".join([f"{out}[j]", *(f"{self.name}_{key}{i}[j]" for key in layer.learned)])
                lines += [f"for (size_t j = 0; j < {fan_out}; j++)", f"    {out}[j] = {symbol}({arguments});"]
            x = out
        lines += self.softmax() if self.model.link == "softmax" else []
        body = "\n    ".join(lines)
        head = f"/* out ({self.n_outputs},) of one row x ({self.n_features},) */\n"
        return f"{head}static void {self.name}_forward(const {self.real} *x, {self.real} *out)\n{{\n    {body}\n}}\n"

    def softmax(self) -> list[str]:
        n, loop = self.n_outputs, f"for (size_t j = 0; j < {self.n_outputs}; j++)"
        return [
            f"{self.real} top = out[0], sum = {self.number(0.0)};",
            f"for (size_t j = 1; j < {n}; j++)",
            "    top = out[j] > top ? out[j] : top;",
            f"{loop} {{",
            f"    out[j] = {self.function('exp')}(out[j] - top);",
            "    sum += out[j];",
            "}",
            loop,
            "    out[j] /= sum;",
        ]

    def functions(self) -> list[str]:
        """Return the functions that others call."""
        return [
            f"{self.signature(method)}\n{{\n    for (size_t i = 0; i < n; i++, X += {self.n_features}) {{\n"
            + "".join(f"        {line}\n" for line in self.row(method))
            + "    }\n}\n"
            for method in self.methods()
        ]

    def row(self, method: str) -> list[str]:
        """Return the statements for the i-th row, at X."""
        model, n = self.model, self.n_outputs
        outputs = [f"{self.real} p[{n}];", f"{self.name}_forward(X, p);"]
        if method == "predict_proba" and model.task == "binary":
            return [*outputs, f"out[2 * i] = {self.number(1.0)} - p[0];", "out[2 * i + 1] = p[0];"]
        if method != "predict" or model.task == "regression":
            return [f"{self.name}_forward(X, out + {n} * i);" if n > 1 else f"{self.name}_forward(X, out + i);"]
        if model.task == "multiclass":
            best = ["int best = 0;", f"for (int j = 1; j < {n}; j++)", "    best = p[j] > p[best] ? j : best;"]
            return [*outputs, *best, "out[i] = best;"]
        loop = [f"for (size_t j = 0; j < {n}; j++)", f"    out[{n} * i + j] = p[j] > {self.number(model.threshold)};"]
        return [*outputs, *loop]


def _bare(text: str) -> str:
    """Return an expression without its outer parentheses."""
    if not text.startswith("("):
        return text
    depth = 0
    for i, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if depth == 0:
            return text[1:-1] if i == len(text) - 1 else text
    return text


def _table(declaration: str, texts: list[str]) -> str:
    """Return a constant array of these items, as many per line as fit."""
    lines = ["   "]
    for text in texts:
        if len(lines[-1]) + len(text) > 115:
            lines.append("   ")
        lines[-1] += f" {text},"
    rows = "\n".join(lines)
    return f"{declaration}[{len(texts)}] = {{\n{rows}\n}};\n"


def _integer(value: int) -> str:
    """Return a constant of long long; the smallest number has no literal."""
    return f"{value}LL" if value > -(2**63) else f"({value + 1}LL - 1)"


def _text(text: str) -> str:
    """Return a C string of these UTF-8 bytes; octal where ASCII or C's trigraphs could mean something else."""
    if "\0" in text:
        raise ValueError(f"a C string cannot hold the character NUL: {text!r}")
    plain = set(range(32, 127)) - set(b'"\\?')
    return '"' + "".join(chr(c) if c in plain else f"\\{c:03o}" for c in text.encode()) + '"'
