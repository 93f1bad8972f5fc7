"""Settings that all timings share."""

import pytest
from threadpoolctl import threadpool_limits


@pytest.fixture(autouse=True)
def one_thread():
    """Products of this size are slower with more BLAS threads, and on a busy machine much slower."""
    with threadpool_limits(1):
        yield
