"""Fixtures and Hypothesis profiles of the tests."""

import os
import signal

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from fastmlp import backends

# The same examples on every run: a failure is the change's, not the day's.  "explore" draws new
# ones: HYPOTHESIS_PROFILE=explore pytest tests/test_kernels.py
_COMMON = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("repeat", derandomize=True, max_examples=25, **_COMMON)
settings.register_profile("explore", max_examples=300, **_COMMON)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeat"))

# Pictures are drawn without a window.
os.environ.setdefault("MPLBACKEND", "agg")

# A shell that starts the tests in the background has them ignore Ctrl-C, which some tests send.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

ENGINES = [name for name in backends.available() if name != "reference"]


# Module scope: Hypothesis runs many examples within one fixture's life.
@pytest.fixture(scope="module", params=ENGINES)
def engine(request):
    """Each engine that is to be judged by the reference."""
    return backends.get(request.param)


@pytest.fixture(scope="module", params=[np.float32, np.float64], ids=["float32", "float64"])
def dtype(request):
    return request.param
