"""A ``torch.nn.Sequential`` as the layers of a network, or an error that names the module that is none."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fastmlp.data.warned import warn
from fastmlp.kernels import formulas
from fastmlp.model.stages import BATCH_NORM_EPS, UNIT_ATTRIBUTES
from fastmlp.saving.torch_table import ACTIVATIONS, BATCH_NORM_MOMENTUM, LINKS


@dataclass
class Layer:
    """A Linear and the modules behind it."""

    W: np.ndarray  # (fan_in, fan_out)
    b: np.ndarray  # (fan_out,)
    activation: Any = None  # as users write it; None until one comes
    slope: np.ndarray | None = None  # (fan_out,) of PReLU
    batch_norm: str = ""
    units: dict[str, np.ndarray] = field(default_factory=dict)  # (fan_out,) each, of the normalisation
    dropout: float | None = None


@dataclass
class Chain:
    """The layers of a Sequential; the last one has the outputs."""

    layers: list[Layer] = field(default_factory=list)
    input_dropout: float = 0.0
    link: str = ""  # what the last module computes; "" if it is a Linear
    link_name: str = ""

    @property
    def n_outputs(self) -> int:
        return len(self.layers[-1].b)

    def sort_outputs(self, order: np.ndarray) -> None:
        """Bring the outputs of classes into this order; of two classes keep the logit of the second."""
        last = self.layers[-1]
        if len(last.b) == 1:
            if order[0] == 1:  # the logit of the other class
                last.W, last.b = -last.W, -last.b
        elif len(last.b) == 2:
            if self.link == "logistic":
                raise ValueError(
                    f"from_torch: {self.link_name} at the end of two outputs makes each a label of its own: give"
                    " multilabel=True instead of classes"
                )
            first, second = order
            last.W = last.W[:, [second]] - last.W[:, [first]]
            last.b = last.b[[second]] - last.b[[first]]
            self.link = "logistic" if self.link else ""
        else:
            last.W, last.b = last.W[:, order], last.b[order]

    def parameters(self) -> dict[str, Any]:
        """Return the estimator's parameters that the modules state; None where they leave the default."""
        hidden = self.layers[:-1]
        return {
            "hidden_layer_sizes": tuple(len(layer.b) for layer in hidden),
            "activation": _one_or_list([layer.activation or "identity" for layer in hidden]),
            "batch_norm": _one_or_list([layer.batch_norm or False for layer in hidden], off=False),
            "dropout": _one_or_list([layer.dropout or 0.0 for layer in hidden], off=0.0),
            "input_dropout": self.input_dropout or None,
        }

    def arrays(self) -> dict[str, list[Any]]:
        """Return the fitted attributes that hold arrays, of one dtype."""
        found: dict[str, list[Any]] = {
            "coefs_": [layer.W for layer in self.layers],
            "intercepts_": [layer.b for layer in self.layers],
        }
        for name, attribute in UNIT_ATTRIBUTES.items():
            arrays = [layer.slope if name == "slope" else layer.units.get(name) for layer in self.layers[:-1]]
            if any(array is not None for array in arrays):
                found[attribute] = arrays
        dtype = np.result_type(*(array for arrays in found.values() for array in arrays if array is not None))
        return {
            attribute: [None if array is None else np.array(array, dtype=dtype) for array in arrays]
            for attribute, arrays in found.items()
        }


def _one_or_list(entries: list[Any], off: Any = None) -> Any:
    """Return one entry for all layers if it is the same, else a list; None if it is off everywhere."""
    if all(entry == off for entry in entries):
        return None
    return entries[0] if all(entry == entries[0] for entry in entries) else entries


# --- reading ----------------------------------------------------------------------------------------------------------


def read(torch: Any, model: Any) -> Chain:
    """Return the layers of a Sequential.

    A TypeError says that it is none; a ValueError names the module that a network cannot have in this place.
    """
    if not isinstance(model, torch.nn.Sequential):
        raise TypeError(
            f"from_torch converts a torch.nn.Sequential, got {type(model).__name__}: build a Sequential of its modules"
            " in the order in which its forward calls them"
        )
    chain, modules = Chain(), list(_flat(torch, model))
    while modules and type(modules[-1][1]) is torch.nn.Identity:
        modules.pop()
    last = max((i for i, (_, module) in enumerate(modules) if isinstance(module, torch.nn.Linear)), default=-1)
    if last < 0:
        raise ValueError("from_torch: the model has no torch.nn.Linear")
    for i, (name, module) in enumerate(modules):
        try:
            if type(module).__name__.startswith("Lazy"):
                raise ValueError("has no weights yet: call the model once")
            if module._forward_hooks or module._forward_pre_hooks:
                raise ValueError("has hooks, which may compute anything")
            if i > last:
                _take_link(chain, name, module, is_end=i == len(modules) - 1)
            else:
                _take(torch, chain, module)
        except ValueError as error:
            raise ValueError(f"from_torch: module {name}, {module}, {error}") from None
    return chain


def _flat(torch: Any, model: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (name, module) in the order of the forward pass; names are those of ``named_modules``."""
    for name, module in model.named_children():
        if type(module) is torch.nn.Sequential:
            yield from _flat(torch, module, f"{prefix}{name}.")
        elif not _is_flatten(torch, module):
            yield f"{prefix}{name}", module


def _is_flatten(torch: Any, module: Any) -> bool:
    return type(module) is torch.nn.Flatten and module.start_dim == 1 and module.end_dim == -1


def _take_link(chain: Chain, name: str, module: Any, is_end: bool) -> None:
    """Take a module behind the last Linear."""
    kind = type(module).__name__
    if kind not in LINKS or not is_end or not type(module).__module__.startswith("torch.nn."):
        raise ValueError(f"stands behind the last Linear, where only {', '.join(LINKS)} may stand")
    if LINKS[kind] == "softmax" and module.dim not in (1, -1):
        raise ValueError("must work on dim=1, the outputs")
    chain.link, chain.link_name = LINKS[kind], f"module {name}, {module},"


def _take(torch: Any, chain: Chain, module: Any) -> None:
    """Take a module up to the last Linear."""
    if type(module) is torch.nn.Linear:
        _take_linear(torch, chain, module)
    elif type(module) is torch.nn.Dropout:
        _take_dropout(chain, module)
    elif type(module) is torch.nn.BatchNorm1d:
        _take_batch_norm(torch, chain, module)
    elif type(module) is torch.nn.Identity:
        if chain.layers and chain.layers[-1].activation is None:
            chain.layers[-1].activation = "identity"
    else:
        _take_activation(torch, chain, module)


def _take_linear(torch: Any, chain: Chain, module: Any) -> None:
    if chain.layers and len(chain.layers[-1].b) != module.in_features:
        raise ValueError(f"reads {module.in_features} features, but the layer before it has {len(chain.layers[-1].b)}")
    W = _array(torch, module.weight).T
    b = np.zeros(W.shape[1], W.dtype) if module.bias is None else _array(torch, module.bias)
    chain.layers.append(Layer(np.ascontiguousarray(W), b))


def _take_dropout(chain: Chain, module: Any) -> None:
    if not chain.layers:
        if chain.input_dropout:
            raise ValueError("is the second dropout of the features")
        chain.input_dropout = float(module.p)
        return
    layer = chain.layers[-1]
    if layer.dropout is not None:
        raise ValueError("is the second dropout of its layer")
    layer.dropout = float(module.p)


def _take_batch_norm(torch: Any, chain: Chain, module: Any) -> None:
    layer = _open_layer(chain)
    if layer.batch_norm:
        raise ValueError("is the second normalisation of its layer")
    if module.num_features != len(layer.b):
        raise ValueError(f"normalises {module.num_features} features, but the layer before it has {len(layer.b)}")
    if module.running_mean is None:
        raise ValueError("has no running statistics, with which predictions are computed")
    if module.eps != BATCH_NORM_EPS:
        raise ValueError(f"has eps={module.eps:g}, batch_norm has {BATCH_NORM_EPS:g}")
    if module.momentum != BATCH_NORM_MOMENTUM:
        warn(f"from_torch: {module} has momentum={module.momentum}, training goes on with {BATCH_NORM_MOMENTUM}")
    mean, var = _array(torch, module.running_mean), _array(torch, module.running_var)
    scale = np.ones_like(mean) if module.weight is None else _array(torch, module.weight)
    shift = np.zeros_like(mean) if module.bias is None else _array(torch, module.bias)
    layer.units = {"scale": scale, "shift": shift, "mean": mean, "var": var}
    layer.batch_norm = "before" if layer.activation is None else "after"


def _take_activation(torch: Any, chain: Chain, module: Any) -> None:
    name, parameters = _activation_of(torch, module)
    layer = _open_layer(chain)
    if layer.activation == "identity":  # a placeholder, which changes nothing
        layer.batch_norm = "before" if layer.batch_norm else ""
    elif layer.activation is not None:
        raise ValueError("is the second activation of its layer")
    layer.activation = name if parameters in ({}, dict(formulas.ACTIVATIONS[name].parameters)) else (name, parameters)
    if name == "prelu":
        slope = _array(torch, module.weight)
        if len(slope) not in (1, len(layer.b)):
            raise ValueError(f"has {len(slope)} slopes, its layer has {len(layer.b)} neurons")
        layer.slope = np.broadcast_to(slope, layer.b.shape)


def _activation_of(torch: Any, module: Any) -> tuple[str, dict[str, float]]:
    """Return our name and parameters for the module of an activation."""
    for name, row in ACTIVATIONS.items():
        parameters = row.of(torch, module)
        if parameters is not None:
            return name, parameters
    known = dict.fromkeys(row.module for row in ACTIVATIONS.values())
    raise ValueError(f"is neither Linear, BatchNorm1d, Dropout nor one of the activations {', '.join(known)}")


def _open_layer(chain: Chain) -> Layer:
    """Return the layer to which a module belongs, which must come before the layer's dropout."""
    if not chain.layers:
        raise ValueError("stands before the first Linear")
    if chain.layers[-1].dropout is not None:
        raise ValueError("stands behind the Dropout of its layer, and must stand before it")
    return chain.layers[-1]


def _array(torch: Any, tensor: Any) -> np.ndarray:
    """Return a tensor's numbers on the host: float64, or float32 for everything smaller."""
    if tensor.is_meta:
        raise ValueError("has no weights yet: it is on the device 'meta'")
    if not tensor.is_floating_point():
        raise ValueError(f"has weights of {tensor.dtype}, and must have real ones")
    dtype = torch.float64 if tensor.dtype == torch.float64 else torch.float32
    array = tensor.detach().to("cpu", dtype).numpy().copy()
    if not np.isfinite(array).all():
        raise ValueError("has weights that are not finite")
    return array
