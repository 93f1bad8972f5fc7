"""`fastmlp train --scheduler`: the fits of the command on the workers of a Dask cluster.

Files are read and columns learned here. The rows that a fit needs are then sent to the workers once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from fastmlp import __version__
from fastmlp.cli import output
from fastmlp.data.optional import needed

Scheduler = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        help="Train on the workers of the Dask cluster whose scheduler has this address, such as tcp://10.0.0.1:8786; "
        "the rows are read here and sent there.",
    ),
]

#: Seconds in which a scheduler must answer, and have a worker.
SECONDS = 10


@dataclass(frozen=True)
class Cluster:
    """A cluster that is ready to train."""

    address: str
    client: Any

    def fit(self, estimator: Any, X: Any, y: Any, sample_weight: Any = None, **validation: Any) -> None:
        """Fit a local estimator there, as its own `fit` does here, up to rounding.

        The command ends with a line on standard error if a worker or the scheduler is lost, or cannot train.
        """
        from fastmlp import dask
        from fastmlp.dask.scattering import scattered

        there = getattr(dask, f"Dask{type(estimator).__name__}")(**estimator.get_params(deep=False), client=self.client)
        try:
            more = {}
            if validation:
                names = ("X_val", "y_val", "sample_weight_val")
                rows = scattered(self.client, *(validation[name] for name in names))
                more = dict(zip(names, rows, strict=True))
            there.fit(*scattered(self.client, X, y, sample_weight), **more)
        except (RuntimeError, ConnectionError) as error:
            output.fail(f"--scheduler {self.address}: {error}", output.FAILED)
        estimator.__setstate__(there.to_local().__getstate__())


def check(address: str | None, given: Mapping[str, Any], time_limit: float | None) -> None:
    """Refuse what cannot be trained on a cluster, before any file is read."""
    if address is None:
        return
    for module in ("distributed", "dask.array", "dask.dataframe"):
        needed(module, "--scheduler", '"fastmlp[dask]"')
    if time_limit is not None:
        raise ValueError("--scheduler makes no sense with --time-limit, which searches on this machine")
    for name in ("n_ens", "n_cv"):
        if given.get(name, 1) != 1:
            raise ValueError(f"--scheduler makes no sense with --{name.replace('_', '-')}: it trains one network")
    if given.get("batch_norm") not in (None, False):
        raise ValueError("--scheduler makes no sense with --batch-norm, which needs all rows of a batch on one machine")


@contextmanager
def connected(address: str | None, *, told: bool) -> Iterator[Cluster | None]:
    """Yield the cluster at an address, whose workers can train; None without an address.

    A ValueError says that there is no scheduler, that it has no workers, or that one of them has no fastmlp or another
    version.
    """
    if address is None:
        yield None
        return
    from distributed import Client

    try:
        client = Client(address, timeout=SECONDS, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        why = f"no scheduler has answered within {SECONDS} s" if isinstance(error, OSError) else f"{error}"
        raise ValueError(f"--scheduler {address}: {why}") from None
    with client:
        try:
            client.wait_for_workers(1, timeout=SECONDS)
        except TimeoutError:
            raise ValueError(f"--scheduler {address}: the cluster has had no workers for {SECONDS} s") from None
        _check_workers(client, address)
        if told:
            threads = client.nthreads()
            typer.echo(f"training on {address}: workers {len(threads)}, threads {sum(threads.values())}", err=True)
        yield Cluster(address, client)


def _check_workers(client: Any, address: str) -> None:
    # no function of fastmlp, which a worker without it could not load
    found = client.run(eval, "__import__('fastmlp').__version__", on_error="return")
    for worker, version in found.items():
        if isinstance(version, ImportError):
            raise ValueError(
                f'--scheduler {address}: worker {worker} has no fastmlp: pip install "fastmlp[dask]" there'
            )
        if version != __version__:
            raise ValueError(f"--scheduler {address}: worker {worker} has fastmlp {version}, here it is {__version__}")
