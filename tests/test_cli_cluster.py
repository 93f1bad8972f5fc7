"""`fastmlp train --scheduler`: the model of a fit on this machine, and what is said if there is no such cluster."""

import json

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("distributed")

from dask_clusters import cluster_of, leftovers

from fastmlp.dask import DaskMLPClassifier, WorkerLost, scattering
from fastmlp.persistence import load, read_metadata

from data_files import QUICK
from shell import invoke, refused


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """A folder of two Parquet files with gaps, texts and weights."""
    folder, rng = tmp_path_factory.mktemp("cluster") / "rows", np.random.default_rng(0)
    folder.mkdir()
    table = pd.DataFrame({"size": rng.normal(50, 9, 240), "colour": rng.choice(["red", "blue"], 240).astype(object)})
    table["kind"] = np.where(table["size"] > 50, "large", "small").astype(object)
    table["price"], table["w"] = 1e3 * table["size"] + rng.normal(size=240), rng.integers(0, 3, 240) / 2
    table.loc[::9, "size"] = None
    table[:100].to_parquet(folder / "a.parquet")
    table[100:].to_parquet(folder / "b.parquet")
    return folder


@pytest.fixture(autouse=True)
def patience(monkeypatch):
    """A busy machine may take longer to connect than people would wait."""
    monkeypatch.setattr("fastmlp.cli.cluster.SECONDS", 120)


@pytest.fixture(scope="module")
def client():
    with cluster_of(2) as client:
        yield client


def address_of(client):
    return client.scheduler.address


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize(
    ("target", "options"),
    [
        ("kind", ("--drop", "price", "--weight", "w", "--early-stopping", "--cv", "2")),
        ("price", ("--drop", "kind", "--drop", "w", "--valid", "0", "--shuffle", "16")),
        ("price", ("--drop", "kind", "--weight", "w", "--solver", "lbfgs")),
        ("kind", ("--drop", "price", "--loss", "hinge", "--dropout", "0.2")),
        ("kind", ("--drop", "price", "--weight", "w", "--model", "tabm", "--k", "2")),
    ],
)
def test_the_model_is_that_of_this_machine(client, rows, tmp_path, monkeypatch, target, options):
    monkeypatch.setattr(scattering, "BLOCK_BYTES", 1000)  # several blocks on each worker
    arguments = ("train", rows, "--target", target, "--dtype", "float64", *QUICK, *options)
    here = json.loads(invoke(*arguments, "-o", tmp_path / "here.st", "--json", "-").stdout)
    result = invoke(*arguments, "-o", tmp_path / "there.st", "--scheduler", address_of(client), "--json", "-")
    there = json.loads(result.stdout)
    ours, local = load(tmp_path / "there.st"), load(tmp_path / "here.st")
    assert type(ours) is type(local)
    assert ours.get_params() == local.get_params()
    for a, b in zip([*ours.coefs_, *ours.intercepts_], [*local.coefs_, *local.intercepts_], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-10)
    for name in ("metrics", "cross_validation"):
        scores = there.get(name, {})
        for part in (scores, scores.get("mean", {})):
            for key, value in part.items():
                if isinstance(value, float):
                    expected = here[name].get(key, here[name].get("mean", {}).get(key))
                    assert value == pytest.approx(expected, rel=1e-6), key
    assert there["epochs"] == here["epochs"] and there["ended"] == here["ended"]
    kept = [read_metadata(tmp_path / f"{name}.st")["table"]["columns"] for name in ("there", "here")]
    assert kept[0] == kept[1]
    assert leftovers(client) == {}


def test_the_command_says_where_it_trains(client, rows, tmp_path):
    arguments = ("train", rows, "--target", "kind", "-o", tmp_path / "m.st", *QUICK)
    said = invoke(*arguments, "--scheduler", address_of(client)).stderr
    assert f"training on {address_of(client)}: workers 2, threads 2" in said
    assert "training" not in invoke(*arguments, "--scheduler", address_of(client), "--quiet").stderr


@pytest.mark.parametrize("error", [WorkerLost("worker x (rank 1) has died", 1, "x"), ConnectionError("no scheduler")])
def test_what_is_lost_during_the_fit_is_one_line(client, rows, tmp_path, monkeypatch, error):
    def fit(self, *given, **more):
        raise error

    monkeypatch.setattr(DaskMLPClassifier, "fit", fit)
    options = ("--target", "kind", "-o", tmp_path / "m.st", "--scheduler", address_of(client), *QUICK)
    assert refused("train", rows, *options, code=1) == f"--scheduler {address_of(client)}: {error}"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("version", "message"),
    [(ImportError("no"), "has no fastmlp: pip install"), ("0.0.7", "has fastmlp 0.0.7, here it is")],
)
def test_workers_that_cannot_train_are_named_before_files_are_read(
    client, rows, tmp_path, monkeypatch, version, message
):
    from distributed import Client

    monkeypatch.setattr(Client, "run", lambda self, *given, **more: {"tcp://worker": version})
    options = ("--target", "no such column", "-o", tmp_path / "m.st", "--scheduler", address_of(client))
    line = refused("train", rows, *options)
    assert "worker tcp://worker" in line and message in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--scheduler", "tcp://127.0.0.1:9"), "no scheduler has answered within"),
        (("--scheduler", "nonsense://x"), "--scheduler nonsense://x: "),
        (("--scheduler", ""), "--scheduler : "),
        (("--scheduler", "x:1", "--time-limit", "5"), "makes no sense with --time-limit"),
        (("--scheduler", "x:1", "--n-ens", "2"), "makes no sense with --n-ens"),
        (("--scheduler", "x:1", "--batch-norm", "after"), "makes no sense with --batch-norm"),
    ],
)
def test_what_is_no_cluster_or_not_for_one(rows, tmp_path, monkeypatch, options, message):
    monkeypatch.setattr("fastmlp.cli.cluster.SECONDS", 0.3)
    line = refused("train", rows, "--target", "kind", "-o", tmp_path / "m.st", *options)
    assert message in line
    assert list(tmp_path.iterdir()) == []


def test_dask_is_an_extra(rows, tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "distributed", None)
    line = refused("train", rows, "--target", "kind", "-o", tmp_path / "m.st", "--scheduler", "x:1")
    assert line == '--scheduler needs distributed: pip install "fastmlp[dask]"'


def test_a_cluster_without_workers(rows, tmp_path, monkeypatch):
    monkeypatch.setattr("fastmlp.cli.cluster.SECONDS", 1)
    with cluster_of(0, processes=False) as empty:
        options = ("--target", "kind", "-o", tmp_path / "m.st", "--scheduler", address_of(empty))
        assert "has had no workers for 1 s" in refused("train", rows, *options)
