"""TEMPORARY: until initialize, layer_outputs and loss_and_gradients are methods."""
import numpy as np
from fastmlp.data import inputs
from fastmlp.engines import backends, by_name
from fastmlp.estimator.base import Extras
from fastmlp.model import weights


def initialize(est, X, y):
    est._validate_params()
    est._task(X, y, None, Extras(incremental=True))
    return est


def layer_outputs(est, X, layer=None):
    if hasattr(est, "layer_outputs"):
        return est.layer_outputs(X, layer)
    engine = backends.get("auto")
    net = est._fitted_network()
    a, found = X, []
    for i, (W, b) in enumerate(zip(est.coefs_, est.intercepts_)):
        z = a @ W + b
        if i < len(est.coefs_) - 1:
            name = net.activations[i]
            a = by_name.activate(engine, "relu" if name == "prelu" else name, np.ascontiguousarray(z))
        else:
            a = est._outputs_of(X)
        found.append(a)
    return found


def loss_and_gradients(est, X, y):
    engine = backends.get("auto")
    network = est._fitted_network()
    objective = est._objective(y)
    data = inputs.encoded(est, X, y, None, network, objective)
    ws = engine.workspace(network, len(X), 1)
    params = weights.flat_params(est, network)
    grad = np.empty_like(params)
    value = engine.loss_and_grad(ws, params, data, est.alpha, grad)
    return value, network.coefs(grad), network.intercepts(grad)
