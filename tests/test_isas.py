"""The choice of an instruction set: at import by FASTMLP_ISA, later by use_isa."""

import os
import subprocess
import sys

import pytest

from fastmlp.kernels import _engine

PRINT_ISA = "from fastmlp.kernels import _engine; print(_engine.isa())"


def at_import(**environment):
    return subprocess.run(
        [sys.executable, "-c", PRINT_ISA], env={**os.environ, **environment}, capture_output=True, text=True
    )


def test_the_fastest_is_the_default():
    assert at_import(FASTMLP_ISA="").stdout.strip() == _engine.isas()[-1]


@pytest.mark.parametrize("isa", _engine.isas())
def test_the_environment_forces_one(isa):
    assert at_import(FASTMLP_ISA=isa).stdout.strip() == isa


def test_an_unknown_one_is_refused():
    done = at_import(FASTMLP_ISA="sse9")
    assert done.returncode != 0
    assert "instruction set 'sse9' is not available here; available: ['baseline'" in done.stderr
    for wrong in ("sse9", "", None, 3):
        with pytest.raises(ValueError, match="is not available here; available: "):
            _engine.use_isa(wrong)
