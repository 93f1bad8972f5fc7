"""The files of a command: none overwrites another, none is half written, and standard streams are files too."""

import io
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest

from fastmlp import MLPClassifier
from fastmlp.bench import suites
from fastmlp.cli import files
from fastmlp.data.files import RESERVED, Reservation

from shell import command, invoke, refused
from tiers import each_value_once, exhaustive

QUICK = ("--hidden", "4", "--max-iter", "3", "--random-state", "0", "--quiet")
POSIX = pytest.mark.skipif(os.name != "posix", reason="POSIX systems have these")
PROCESS = pytest.mark.exhaustive  # processes of their own, which take seconds to start
FULL = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux has this device")


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"a": rng.normal(size=60).round(3), "b": rng.choice(["u", "v"], 60)})
    return frame.assign(y=np.where(frame["a"] + (frame["b"] == "u") > 0.5, "yes", "no"))


@pytest.fixture(scope="module")
def trained(table, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    table.to_csv(folder / "d.csv", index=False)
    invoke("train", folder / "d.csv", "--target", "y", *QUICK, "-o", folder / "m.st")
    return (folder / "m.st").read_bytes()


@pytest.fixture
def here(table, trained, tmp_path, monkeypatch):
    """A folder that is the current one, with the data d.csv, the same rows in v.csv, and a model m.st."""
    table.to_csv(tmp_path / "d.csv", index=False)
    table.to_csv(tmp_path / "v.csv", index=False)
    (tmp_path / "m.st").write_bytes(trained)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


# --- nothing is overwritten -------------------------------------------------------------------------------------------

TRAIN = ("train", "d.csv", "--target", "y", *QUICK)
#: A command in which two options name one file, the files it names, and the options that the error names.
CLASHES = [
    ((*TRAIN, "-o", "{d.csv}"), ("--output", "DATA")),
    ((*TRAIN, "-o", "x.st", "--json", "{d.csv}"), ("--json", "DATA")),
    ((*TRAIN, "-o", "x.st", "--valid", "v.csv", "--json", "{v.csv}"), ("--json", "--valid")),
    ((*TRAIN, "-o", "{v.csv}", "--valid", "v.csv"), ("--output", "--valid")),
    ((*TRAIN, "-o", "{x}", "--json", "x"), ("--output", "--json")),
    ((*TRAIN, "-o", "{x.png}", "--plot", "x.png"), ("--output", "--plot")),
    ((*TRAIN, "-o", "x.st", "--plot", "{x.png}", "--json", "x.png"), ("--plot", "--json")),
    (("predict", "m.st", "d.csv", "-o", "{d.csv}"), ("--output", "DATA")),
    (("predict", "m.st", "d.csv", "-o", "p.csv", "--json", "{m.st}"), ("--json", "MODEL")),
    (("predict", "m.st", "d.csv", "-o", "{p.csv}", "--json", "p.csv"), ("--output", "--json")),
    (("evaluate", "m.st", "d.csv", "--json", "{m.st}"), ("--json", "MODEL")),
    (("evaluate", "m.st", "d.csv", "--json", "{d.csv}"), ("--json", "DATA")),
    (("show", "m.st", "--json", "{m.st}"), ("--json", "MODEL")),
    (("export", "m.st", "--c", "{m.st}"), ("--c", "MODEL")),
    (("export", "m.st", "--onnx", "{m.st}"), ("--onnx", "MODEL")),
    (("export", "m.st", "--onnx", "{m.c}", "--c", "m.c"), ("--onnx", "--c")),
    (("export", "m.st", "--c", "m.c", "--json", "{m.c}"), ("--c", "--json")),
    (("bench", "--json", "{r}", "--html", "r"), ("--json", "--html")),
    (("bench", "--compare", "d.csv", "--json", "{d.csv}"), ("--json", "--compare")),
]

#: Other names of a file in the current folder.
SPELLINGS = {
    "the same name": lambda path: path.name,
    "another relative name": lambda path: os.path.join(os.curdir, os.pardir, path.parent.name, path.name),
    "an absolute name": str,
    "a link": lambda path: _linked(path, os.symlink),
    "a hard link": lambda path: _linked(path, os.link),
    "a linked folder": lambda path: str(_linked_folder(path) / path.name),
}


def _linked(path, link):
    other = path.with_name(f"other{path.suffix}")
    link(path, other)
    return other.name


def _linked_folder(path):
    link = path.parent / "folder"
    link.symlink_to(path.parent, target_is_directory=True)
    return link


@POSIX
@each_value_once
@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize(("arguments", "options"), CLASHES, ids=lambda value: " ".join(value))
def test_one_file_under_two_names_is_refused_before_any_work(here, monkeypatch, arguments, options, spelling):
    monkeypatch.setattr(suites, "run", None)
    monkeypatch.setattr("fastmlp.cli.train.open_source", None)
    monkeypatch.setattr("fastmlp.cli.predict.load", None)
    named = here / next(text for text in arguments if text.startswith("{"))[1:-1]
    if not named.exists():
        if spelling == "a hard link":
            named.write_text("old")  # there is none of a file that is not there
        elif spelling == "a link" and options[1] != "--json":
            named.write_text("old")
    other = SPELLINGS[spelling](named)
    before = contents(here)
    line = refused(*(other if text.startswith("{") else text for text in arguments))
    assert all(option in line for option in options) and ("overwritten" in line or "are the same file" in line)
    assert contents(here) == before


@POSIX
@PROCESS
def test_standard_streams_are_files_too(here):
    """A shell's redirections to and from a file are seen."""
    with open("d.csv", "rb") as stdin, command("predict", "m.st", "-", "-o", "d.csv", stdin=stdin) as process:
        assert b"is the file of DATA" in process.communicate()[1]
    before = contents(here)
    with open("d.csv", "ab") as stdout, command("predict", "m.st", "d.csv", stdout=stdout) as process:
        assert b"--output - is the file of DATA" in process.communicate()[1]
    assert process.returncode == 2 and contents(here) == before


def test_names_that_differ_in_case_only(here, monkeypatch):
    """They are two files where the file system thinks so, and one file elsewhere."""
    arguments = (*TRAIN, "-o", "x.st", "--json", "X.st")
    if not (here / "D.CSV").exists():
        invoke(*arguments)
        assert {"x.st", "X.st"} <= set(contents(here))
        exists = type(here).exists
        # a system that ignores case
        monkeypatch.setattr(type(here), "exists", lambda path: exists(path) or exists(path.with_name(
            path.name.swapcase())))  # fmt: skip
    os.remove("x.st")
    os.remove("X.st")
    assert "are the same file" in refused(*arguments)


def test_different_files_are_fine(here):
    """Also two devices, two names for nothing, and an output that is there."""
    invoke(*TRAIN, "-o", "m.st", "--json", os.devnull)
    invoke("export", "m.st", "--c", "m.c", "--json", os.devnull)
    invoke("export", "m.st", "--c", "m.c", "--json", "m.json")
    invoke("predict", "m.st", "d.csv", "-o", "p.csv", "--json", "m.json")


# --- outputs that cannot be written -----------------------------------------------------------------------------------


@FULL
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((*TRAIN, "-o", "x.st", "--json", "/dev/full"), "cannot write /dev/full: No space left"),
        ((*TRAIN, "-o", "/dev/full"), "--output /dev/full must be a regular file"),
        ((*TRAIN, "-o", "x.st", "--plot", "/dev/full"), "--plot /dev/full must be a regular file"),
        (("evaluate", "m.st", "d.csv", "--json", "/dev/full"), "cannot write /dev/full: No space left"),
        (("export", "m.st", "--c", "/dev/full"), "--c /dev/full must be a regular file"),
        (("bench", "--json", "/dev/full"), "cannot write /dev/full: No space left"),
        (("bench", "--html", "/dev/full"), "cannot write /dev/full: No space left"),
    ],
)
def test_a_full_device_is_refused_before_any_work(here, monkeypatch, arguments, message):
    monkeypatch.setattr(suites, "run", None)
    monkeypatch.setattr("fastmlp.cli.train.open_source", None)
    monkeypatch.setattr("fastmlp.cli.evaluate.load", None)
    before = contents(here)
    assert message in refused(*arguments)
    assert contents(here) == before


def no_room(*arguments):
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("failing", ["fsync", "posix_fallocate"])
def test_room_for_the_model_is_taken_before_the_fit(here, monkeypatch, failing):
    """At first for the smallest of results, then for the weights of the network."""
    if not hasattr(os, failing):
        pytest.skip("the system has none")
    monkeypatch.setattr(os, failing, no_room)
    monkeypatch.setattr(MLPClassifier, "fit", None)
    before = contents(here)
    large = ("train", "d.csv", "--target", "y", "--hidden", "9000", "--quiet")
    assert "No space left on device" in refused(*large, "-o", "x.st")
    assert contents(here) == before and len(list(here.iterdir())) == len(before)


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="the system promises nothing")
def test_a_reservation_holds_what_it_was_asked_for(tmp_path):
    room = Reservation(tmp_path / "x")
    assert room.part.stat().st_size == RESERVED
    room.grow(1_000_000)
    assert room.part.stat().st_blocks * 512 >= 1_000_000
    room.release()
    room.release()
    assert not list(tmp_path.iterdir())


@FULL
@pytest.mark.parametrize("arguments", [("info",), ("info", "--json", "-"), ("show", "m.st"), ("predict", "m.st", "-")])
@PROCESS
def test_standard_output_that_is_full_is_one_line(here, arguments):
    with (
        open("/dev/full", "wb") as full,
        open("d.csv", "rb") as data,
        command(*arguments, stdout=full, stdin=data) as process,
    ):
        text = process.communicate()[1].decode()
    (line,) = text.splitlines()
    assert process.returncode == 2
    assert line.startswith("Error: ") and "standard output" in line and "No space left on device" in line


@POSIX
@pytest.mark.parametrize(("closed", "arguments"), [
    (1, ("info", "--json", "-")), (1, ("predict", "m.st", "d.csv")), (0, ("predict", "m.st", "-", "-o", "p.csv")),
])  # fmt: skip
@PROCESS
def test_a_closed_stream_is_one_line(here, closed, arguments):
    with command(*arguments, preexec_fn=lambda: os.close(closed)) as process:
        text = process.communicate()[1].decode()
    assert process.returncode == 2 and text.count("\n") == 1 and "is closed" in text, text


# --- pipes ------------------------------------------------------------------------------------------------------------


@POSIX
@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("train", "pipe.csv", "--target", "y", "-o", "x.st"), "DATA"),
        (("train", "d.csv", "--valid", "pipe.csv", "--target", "y", "-o", "x.st"), "--valid"),
        (("train", "d.csv", "--target", "y", "-o", "pipe.csv"), "--output"),
        (("predict", "m.st", "pipe.csv"), "DATA"),
        (("predict", "pipe.csv", "d.csv"), "MODEL"),
        (("predict", "m.st", "d.csv", "-o", "pipe.csv"), "--output"),
        (("evaluate", "m.st", "pipe.csv"), "DATA"),
        (("evaluate", "pipe.csv", "d.csv"), "MODEL"),
        (("show", "pipe.csv"), "MODEL"),
        (("export", "pipe.csv", "--c", "x.c"), "MODEL"),
        (("bench", "--compare", "pipe.csv"), "--compare"),
    ],
)
def test_a_pipe_where_a_file_is_needed_is_refused_at_once(here, arguments, named):
    """Nobody writes to this pipe: who opens it waits for ever."""
    os.mkfifo("pipe.csv")
    assert refused(*arguments).startswith(f"{named} pipe.csv must be a regular file")


@POSIX
@PROCESS
def test_json_may_go_to_a_pipe(here):
    os.mkfifo("pipe")
    with command("show", "m.st", "--json", "pipe") as process, open("pipe") as pipe:
        assert json.load(pipe)["estimator"] == "MLPClassifier"
        process.communicate()
    assert process.returncode == 0


@POSIX
@PROCESS
def test_a_reader_that_goes_away_is_no_error(here, table):
    pd.concat([table] * 3000).to_csv("large.csv", index=False)
    with command("predict", "m.st", "large.csv") as process:
        assert process.stdout.readline() == b'"y"\n'
        process.stdout.close()
        assert process.stderr.read() == b""
        process.wait(60)


@POSIX
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("arguments", [("train", "large.csv", "--target", "y", "-o", "x.st"),
                                       ("predict", "m.st", "large.csv", "-o", "p.csv")])  # fmt: skip
@PROCESS
def test_a_signal_leaves_no_half_written_file(here, table, arguments, name):
    pd.concat([table] * 10_000).to_csv("large.csv", index=False)
    before = set(os.listdir())
    with command(*arguments) as process:
        while len(os.listdir()) == len(before):
            assert process.poll() is None
            time.sleep(0.01)
        time.sleep(0.2)
        process.send_signal(getattr(signal, name))
        process.communicate()
    assert process.returncode != 0
    assert set(os.listdir()) == before


# --- standard input ---------------------------------------------------------------------------------------------------


def test_standard_input_gives_what_the_file_gives(here, table):
    text = (here / "d.csv").read_bytes()
    expected = invoke("predict", "m.st", "d.csv").stdout
    assert invoke("predict", "m.st", "-", stdin=text).stdout == expected
    buffer = io.BytesIO()
    table.to_parquet(buffer)
    assert invoke("predict", "m.st", "-", "--format", "parquet", stdin=buffer.getvalue()).stdout == expected
    ours = json.loads(invoke("evaluate", "m.st", "-", "--json", "-", stdin=text).stdout)
    assert ours | {"data": "d.csv"} == json.loads(invoke("evaluate", "m.st", "d.csv", "--json", "-").stdout)
    invoke("train", "-", *TRAIN[2:], "-o", "x.st", stdin=text)
    assert invoke("predict", "x.st", "d.csv").stdout == expected  # of the same seed


@pytest.mark.parametrize(
    ("arguments", "text", "message"),
    [
        (("predict", "m.st", "-"), "a,b\n1,u\nx,u\n", "standard input: row 2, column 'a': 'x' is no number"),
        (("predict", "m.st", "-"), "", "standard input: is empty"),
        (("evaluate", "m.st", "-"), "a,b\n1,u\n", "standard input: no column 'y'"),
        (("train", "-", "--target", "z", "-o", "x.st"), "a,b\n1,u\n", "standard input: no column 'z'"),
        (("predict", "m.st", "-", "--format", "doc"), "a,b\n1,u\n", "--format must be one of .csv, .tsv"),
        (("predict", "m.st", "d.csv", "--format", "csv"), "", "--format is for standard input"),
        (("train", "d.csv", "--valid", "-", "--target", "y", "-o", "x.st"), "", "--valid must be a share or a file"),
    ],
)
def test_errors_in_standard_input_name_it(here, arguments, text, message):
    before = contents(here)
    assert message in refused(*arguments, stdin=text)
    assert contents(here) == before


def test_the_copy_of_standard_input_is_removed(here, monkeypatch, tmp_path_factory):
    folder = tmp_path_factory.mktemp("copies")
    monkeypatch.setattr(files.tempfile, "tempdir", str(folder))
    invoke("predict", "m.st", "-", stdin="a,b\n1,u\n")
    refused("predict", "m.st", "-", stdin="a,b\nx,u\n")
    assert not list(folder.iterdir())


# --- python -m fastmlp, -h --------------------------------------------------------------------------------------------


@PROCESS
def test_the_package_runs_as_a_module():
    from fastmlp import __version__

    for arguments, text in ((["--version"], f"fastmlp {__version__}\n"), (["predict", "-h"], "Usage: fastmlp predict")):
        run = subprocess.run([sys.executable, "-m", "fastmlp", *arguments], capture_output=True, text=True, check=True)
        assert text in run.stdout
    run = subprocess.run([sys.executable, "-m", "fastmlp", "predict"], capture_output=True, text=True, check=False)
    assert run.returncode == 2 and "Try 'fastmlp predict -h'" in run.stderr


@pytest.mark.parametrize(
    "name", [(), ("train",), ("predict",), *exhaustive(("evaluate",), ("show",), ("export",), ("bench",))]
)
def test_every_command_has_a_short_option_for_help(name):
    text = invoke(*name, "-h").stdout
    assert "-h" in text and text == invoke(*name, "--help").stdout
