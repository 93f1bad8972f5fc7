"""Time of whole fits, by engine, with scikit-learn beside them; run with `pytest bench`.

Every fit runs the same 20 epochs from the same weights over the same batches. Before one is timed, its weights are
compared with scikit-learn's.
"""

import numpy as np
import pytest
from sklearn import neural_network

import fastmlp
from fastmlp.bench.quick import load
from fastmlp.engines import backends

EPOCHS = 20
NETS = {"iris": {"hidden_layer_sizes": (16,), "batch_size": 32}, "digits": {"hidden_layer_sizes": (100,)}}

# Largest difference of a weight after 20 epochs, relative to the largest weight.
TOLERANCE = {"float32": 1e-3, "float64": 1e-9}


def classifier(rival, net):
    params = {**NETS[net], "max_iter": EPOCHS, "n_iter_no_change": EPOCHS, "random_state": 0}
    if rival == "scikit-learn":
        return neural_network.MLPClassifier(**params)
    return fastmlp.MLPClassifier(**params, backend=rival, n_jobs=1)


def weights(model):
    return np.concatenate([w.ravel() for w in (*model.coefs_, *model.intercepts_)])


@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
@pytest.mark.parametrize("rival", ["scikit-learn", *backends.available()])
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("net", NETS)
def test_fit(benchmark, net, dtype, rival):
    X, y = load(net)
    X = X.astype(dtype)
    model = classifier(rival, net).fit(X, y)
    expected = weights(classifier("scikit-learn", net).fit(X, y))
    np.testing.assert_allclose(weights(model), expected, rtol=0, atol=TOLERANCE[dtype] * np.abs(expected).max())
    benchmark.group = f"{EPOCHS} epochs, {net}, {dtype}"
    benchmark(model.fit, X, y)
