"""Fits on the rows of processes under MPI: what mpi_fits.py checks, run by mpirun with two and three processes."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

FITS = Path(__file__).parent / "mpi_fits.py"


def lines_of(n_ranks, *checks):
    """Run the checks on so many ranks; return the lines that they print."""
    mpi4py = pytest.importorskip("mpi4py")
    beside = Path(mpi4py.__file__).parents[4] / "bin"  # where wheels of an MPI have it
    mpirun = shutil.which("mpirun", path=os.pathsep.join([str(beside), os.environ.get("PATH", "")]))
    command = [mpirun, "--allow-run-as-root", "--oversubscribe", "-n", str(n_ranks), sys.executable, str(FITS), *checks]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return sorted(done.stdout.splitlines())


@pytest.mark.parametrize(
    "n_ranks, checks",
    [
        (2, ["fits", "sums", "failing_sum"]),
        pytest.param(
            3, ["fits", "sums", "wrong_rows", "failing_rank", "failing_sum", "sums"], marks=pytest.mark.exhaustive
        ),
    ],
)
def test_fits_under_mpi(n_ranks, checks):
    assert lines_of(n_ranks, *checks) == sorted(f"{rank} {check} ok" for rank in range(n_ranks) for check in checks)


@pytest.mark.exhaustive
def test_a_process_that_hangs():
    assert lines_of(2, "stopped_rank") == ["0 stopped_rank ok", "1 stopped_rank ok"]
