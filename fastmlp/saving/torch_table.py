"""Activations and the modules of PyTorch that compute the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

#: What to install.
INSTALL = '"fastmlp[torch]"'

#: Of BatchNorm1d, as the engines have it.
BATCH_NORM_MOMENTUM = 0.1

#: Of Softplus: from here on the module returns its argument. Its own default, 20, loses digits in float64.
SOFTPLUS_THRESHOLD = 40.0


class Activation(NamedTuple):
    """The module of an activation: its class, and our parameter -> its attribute, which is its argument too."""

    module: str
    parameters: Mapping[str, str] = {}
    #: Further arguments; a module of the same class with others is another activation.
    constants: Mapping[str, Any] = {}

    def made(self, torch: Any, parameters: Mapping[str, float], width: int, dtype: Any) -> Any:
        """Return a new module for a layer of this width."""
        if self.module == "PReLU":
            return torch.nn.PReLU(width, dtype=dtype)
        given = {theirs: parameters[ours] for ours, theirs in self.parameters.items()}
        return getattr(torch.nn, self.module)(**given, **self.constants)

    def of(self, torch: Any, module: Any) -> dict[str, float] | None:
        """Return our parameters for a module; None if it is another activation."""
        if type(module) is not getattr(torch.nn, self.module):
            return None
        if self.module == "GELU" and module.approximate != self.constants["approximate"]:
            return None
        return {ours: float(getattr(module, theirs)) for ours, theirs in self.parameters.items()}


ACTIVATIONS: dict[str, Activation] = {
    "identity": Activation("Identity"),
    "logistic": Activation("Sigmoid"),
    "tanh": Activation("Tanh"),
    "relu": Activation("ReLU"),
    "leaky_relu": Activation("LeakyReLU", {"negative_slope": "negative_slope"}),
    "rrelu": Activation("RReLU", {"lower": "lower", "upper": "upper"}),
    "prelu": Activation("PReLU"),
    "relu6": Activation("ReLU6"),
    "elu": Activation("ELU", {"alpha": "alpha"}),
    "selu": Activation("SELU"),
    "celu": Activation("CELU", {"alpha": "alpha"}),
    "gelu": Activation("GELU", constants={"approximate": "none"}),
    "gelu_tanh": Activation("GELU", constants={"approximate": "tanh"}),
    "silu": Activation("SiLU"),
    "mish": Activation("Mish"),
    "softplus": Activation("Softplus", {"beta": "beta"}, {"threshold": SOFTPLUS_THRESHOLD}),
    "softsign": Activation("Softsign"),
    "hardtanh": Activation("Hardtanh", {"min_val": "min_val", "max_val": "max_val"}),
    "hardsigmoid": Activation("Hardsigmoid"),
    "hardswish": Activation("Hardswish"),
}

#: The module at the end of a model -> our link.
LINKS = {"Softmax": "softmax", "LogSoftmax": "softmax", "Sigmoid": "logistic", "LogSigmoid": "logistic"}
