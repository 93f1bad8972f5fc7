"""The commands on files as people have them: one table in many forms gives one model, one judgement, one prediction."""

import gzip
import io
import json

import numpy as np
import pandas as pd
import pytest

from fastmlp.persistence import load

from data_files import saved, zipped
from shell import invoke, refused
from tiers import exhaustive

QUICK = ("--hidden", "4", "--max-iter", "3", "--random-state", "0", "--quiet")
ROLES = ("--target", "quality", "--id", "bottle", "--weight", "bottles")
MARKS = ("--decimal", ",", "--thousands", ".")


def wine(n, seed):
    """Bottles with an id, weights, gaps, and numbers of more than three digits."""
    rng = np.random.default_rng(seed)
    table = pd.DataFrame({
        "bottle": [f"B{seed}{i:03d}" for i in range(n)],
        "alcohol": rng.normal(12, 1, n).round(2),
        "price": rng.gamma(2, 900, n).round(2),
        "colour": rng.choice(["red", "rosé"], n),
        "organic": rng.random(n) < 0.5,
        "bottles": rng.integers(0, 9, n) / 2,
    })  # fmt: skip
    table["quality"] = np.where(table["alcohol"] + (table["colour"] == "red") > 12.5, "good", "fair")
    table.loc[rng.random(n) < 0.1, "alcohol"] = np.nan
    table.loc[rng.random(n) < 0.1, "colour"] = None
    return table


def german(table, path):
    """Write semicolons between the fields, commas as decimal marks and points between thousands."""
    marked = table.assign(price=[f"{p:,.2f}".translate(str.maketrans(",.", ".,")) for p in table["price"]])
    marked.to_csv(path, index=False, sep=";", decimal=",")


def indexed(table, path):
    """Write the ids as the index of a frame."""
    table.set_index("bottle").to_parquet(path)


#: Form -> ending, what writes it, options of every command.
FORMS = {
    "commas": (".csv", saved, ()),
    "decimal commas": (".csv", german, MARKS),
    "lines": (".jsonl.gz", saved, ()),
    "document": (".json", lambda table, path: table.to_json(path, orient="split"), ()),
    "workbook": (".xlsx", saved, ()),
    "index": (".parquet", indexed, ()),
    "arrow": (".feather", saved, ()),
}


def written(folder, form, names=("train", "valid", "test")):
    """The paths of three tables in a form."""
    ending, write, _ = FORMS[form]
    paths = [folder / f"{name}{ending}" for name in names]
    for seed, path in enumerate(paths):
        write(wine(40, seed), path)
    return paths


def done(folder, form):
    """What the three commands say of a form: the report of train, that of evaluate, and predictions."""
    train, valid, test = written(folder, form)
    options, model = FORMS[form][2], folder / "m.st"
    invoke("train", train, *ROLES, "--valid", valid, *options, *QUICK, "-o", model, "--json", folder / "t.json")
    report = json.loads((folder / "t.json").read_text())
    # the model knows how numbers are written
    judged = json.loads(invoke("evaluate", model, test, "--weight", "bottles", "--json", "-").stdout)
    predictions = invoke("predict", model, test, "--proba").stdout
    return report, judged, predictions


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """The folder of the plain form, and what the commands say of it."""
    folder = tmp_path_factory.mktemp("plain")
    return folder, done(folder, "commas")


PATHS = ("model", "data", "validation", "seconds")


def without(report, *names):
    return {name: value for name, value in report.items() if name not in names}


@pytest.mark.parametrize("form", ["decimal commas", "lines", "workbook", "index", *exhaustive("document", "arrow")])
def test_a_table_is_the_same_in_every_form(tmp_path, plain, form):
    report, judged, predictions = done(tmp_path, form)
    assert without(report, *PATHS) == without(plain[1][0], *PATHS)
    assert without(judged, *PATHS) == without(plain[1][1], *PATHS)
    assert predictions == plain[1][2]


@pytest.mark.parametrize("form", ["decimal commas", *exhaustive(*(n for n in FORMS if n != "decimal commas"))])
def test_standard_input_in_every_form(tmp_path, plain, form):
    ending, _, options = FORMS[form]
    train, _, test = (path.read_bytes() for path in written(tmp_path, form))
    model, more = plain[0] / "m.st", ("--format", ending[1:], *options)
    judged = invoke("evaluate", model, "-", *more, "--weight", "bottles", "--json", "-", stdin=test).stdout
    assert without(json.loads(judged), *PATHS) == without(plain[1][1], *PATHS)
    assert invoke("predict", model, "-", *more, "--proba", stdin=test).stdout == plain[1][2]
    rows = ("--valid", plain[0] / "valid.csv") if not options else ("--valid", tmp_path / f"valid{ending}")
    invoke("train", "-", *more, *ROLES, *rows, *QUICK, "-o", tmp_path / "m.st", stdin=train)
    for ours, theirs in zip(load(tmp_path / "m.st").coefs_, load(model).coefs_, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_standard_input_may_be_an_archive(tmp_path, plain):
    test = (plain[0] / "test.csv").read_bytes()
    arguments = ("predict", plain[0] / "m.st", "-", "--proba", "--format")
    assert invoke(*arguments, "zip", stdin=zipped(t_csv=test)).stdout == plain[1][2]
    assert invoke(*arguments, ".CSV.GZ", stdin=gzip.compress(test)).stdout == plain[1][2]
    assert "--format must be one of .csv," in refused(*arguments, "../t.csv", stdin=test)
    arrays = io.BytesIO()
    np.savez(arrays, X=np.arange(80.0).reshape(40, 2) % 7, y=np.arange(40) % 2)
    train = ("train", "-", "--format", "npz", *QUICK, "-o", tmp_path / "m.st")
    invoke(*train, stdin=arrays.getvalue())  # the target of an archive is y


def test_marks_of_numbers_can_be_given_anew(tmp_path, plain):
    (train,) = written(tmp_path, "decimal commas", ("train",))
    model, test = tmp_path / "m.st", plain[0] / "test.csv"
    invoke("train", train, *ROLES, *MARKS, *QUICK, "-o", model)
    both = [("evaluate", model, test, "--json", "-"), ("predict", model, test)]
    for command in both:
        assert "cannot be the decimal mark" in refused(*command)
        assert "--decimal must be" in refused(*command, "--decimal", "x")
        assert "--thousands must be one of" in refused(*command, "--thousands", "x")
        invoke(*command, "--decimal", ".", "--thousands", "none")
    (test,) = written(tmp_path, "decimal commas", ("test",))
    for command in ("evaluate", "predict"):
        assert "--thousands . reads such numbers" in refused(command, plain[0] / "m.st", test, "--decimal", ",")
    valid = ("train", plain[0] / "train.csv", *ROLES, *QUICK, "--valid", test, "-o", tmp_path / "n.st")
    assert "test.csv: row 1, column 'alcohol': '" in refused(*valid)


def test_the_index_of_a_frame_is_left_out_wherever_it_is(tmp_path):
    table = wine(40, 0).drop(columns="bottle")
    for name, part in (("train", table[:30]), ("valid", table[30:])):
        part.sample(frac=1, random_state=0).to_parquet(tmp_path / f"{name}.parquet")
    files = (tmp_path / "train.parquet", "--valid", tmp_path / "valid.parquet")
    result = invoke("train", *files, "--target", "quality", *QUICK[:-1], "-o", tmp_path / "m.st")
    assert "left out '__index_level_0__': the index of a pandas frame" in " ".join(result.stdout.split())
    judged = json.loads(invoke("evaluate", tmp_path / "m.st", files[2], "--json", "-").stdout)
    assert judged["left_out"] == {"__index_level_0__": "the index of a pandas frame"}
    asked = ("--kind", "__index_level_0__=numeric")
    invoke("train", *files, "--target", "quality", *asked, *QUICK, "-o", tmp_path / "m.st")
    judged = json.loads(invoke("evaluate", tmp_path / "m.st", files[2], "--json", "-").stdout)
    assert judged["left_out"] == {}


def test_what_is_not_read_is_said(tmp_path, plain):
    path = tmp_path / "test.xlsx"
    with pd.ExcelWriter(path) as book:
        wine(40, 2).to_excel(book, index=False)
        wine(40, 3).to_excel(book, sheet_name="more", index=False)
    why = "is another sheet of the workbook, which was not read"
    for command in ("evaluate", "predict"):
        result = invoke(command, plain[0] / "m.st", path, "--json", tmp_path / "r.json")
        assert json.loads((tmp_path / "r.json").read_text())["notes"] == {"more": why}
        assert f"test.xlsx: 'more' {why}" in result.stderr
    train = ("train", plain[0] / "train.csv", *ROLES, *QUICK[:-1], "--valid", path, "-o", tmp_path / "m.st")
    result = invoke(*train, "--json", tmp_path / "r.json")
    report = json.loads((tmp_path / "r.json").read_text())
    assert (report["notes"], report["validation_notes"]) == ({}, {"more": why})
    assert f"test.xlsx: 'more' {why}" in result.stderr


def test_weights_are_numbers(plain):
    arguments = ("evaluate", plain[0] / "m.st", plain[0] / "test.csv", "--weight")
    assert "--weight colour is a column of texts" in refused(*arguments, "colour")
    assert "column 'bottle': 'B2000' is no number" in refused(*arguments, "bottle")
    invoke(*arguments, "organic")


# --- ids and classes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [".jsonl", ".json", ".xlsx"])
def test_ids_of_several_types_are_repeated_as_they_are(tmp_path, plain, monkeypatch, ending):
    monkeypatch.setattr("fastmlp.tabular.rows.BLOCK_ROWS", 10)
    ids = [1, 2**53 - 1, 10, *(range(3, 12)), "x7", True, *([None] * 9), 2.5]
    if ending != ".xlsx":
        ids[1] = 2**60 + 1  # no float64
    table = wine(len(ids), 2).assign(bottle=pd.Series(ids, dtype=object))
    saved(table, tmp_path / f"t{ending}")
    texts = ["" if i is None else "true" if i is True else str(i) for i in ids]
    for out in ("p.csv", "p.parquet"):
        invoke("predict", plain[0] / "m.st", tmp_path / f"t{ending}", "-o", tmp_path / out)
    found = pd.read_csv(tmp_path / "p.csv", dtype=str, keep_default_na=False)["bottle"]
    assert found.tolist() == texts
    assert pd.read_parquet(tmp_path / "p.parquet")["bottle"].fillna("").tolist() == texts


@pytest.mark.parametrize("gap", ["train", "valid"])
def test_whole_numbers_are_one_category_with_and_without_a_point(tmp_path, gap):
    """pandas writes a column of whole numbers with a gap as 3.0, without one as 3."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"zip": rng.integers(1, 4, 60), "x": rng.normal(size=60), "y": rng.integers(5, 7, 60)})
    point = table.assign(zip=table["zip"].astype(float), y=table["y"].astype(float))
    kinds = ("--kind", "zip=categorical", "--kind", "y=categorical", "--json", tmp_path / "r.json")
    reports, names = [], ("same", "train", "valid")
    for name in names:
        (point if name == "train" == gap else table)[:40].to_csv(tmp_path / f"{name}_a.csv", index=False)
        (point if name == "valid" == gap else table)[40:].to_csv(tmp_path / f"{name}_b.csv", index=False)
    for name in ("same", gap):
        model, files = tmp_path / f"{name}.st", [tmp_path / f"{name}_{part}.csv" for part in "ab"]
        invoke("train", files[0], "--valid", files[1], "--target", "y", *kinds, *QUICK, "-o", model)
        report = json.loads((tmp_path / "r.json").read_text())
        judged = json.loads(invoke("evaluate", model, files[1], "--json", "-").stdout)
        reports.append((report["features"], report["metrics"], judged["rows"], judged["unseen"], judged["metrics"]))
    assert reports[0] == reports[1]
    assert reports[0][0] == 4 and reports[0][2]["evaluated"] == 20


# --- no rows ----------------------------------------------------------------------------------------------------------

#: A file without rows -> what writes it.
EMPTY = {
    "bare.csv": lambda t, path: path.write_text(",".join(t)),
    **dict.fromkeys((".csv", ".tsv", ".csv.gz", ".csv.zip"), lambda t, path: t.to_csv(path, index=False)),
    ".xlsx": lambda t, path: t.to_excel(path, index=False),
    ".parquet": lambda t, path: t.to_parquet(path),
    ".feather": lambda t, path: t.to_feather(path),
    "_split.json": lambda t, path: t.to_json(path, orient="split"),
    "_table.json": lambda t, path: t.to_json(path, orient="table"),
    "_columns.json": lambda t, path: t.to_json(path),
    "_lists.json": lambda t, path: path.write_text(json.dumps({name: [] for name in t})),
}


RARE = (".csv", ".tsv", ".csv.gz", ".csv.zip", ".feather", "_lists.json")


@pytest.mark.parametrize("form", [*(form for form in EMPTY if form not in RARE), *exhaustive(*RARE)])
def test_a_file_without_rows_gives_predictions_without_rows(tmp_path, plain, form):
    EMPTY[form](wine(5, 0).iloc[:0], tmp_path / f"t{form}")
    arguments = plain[0] / "m.st", tmp_path / f"t{form}"
    header = plain[1][2].splitlines(keepends=True)[0]
    assert invoke("predict", *arguments, "--proba").stdout == header
    assert "has no rows" in refused("evaluate", *arguments)
    assert "has no rows" in refused("train", arguments[1], "--target", "quality", *QUICK, "-o", tmp_path / "n.st")
    valid = ("train", plain[0] / "train.csv", *ROLES, *QUICK, "--valid", arguments[1], "-o", tmp_path / "n.st")
    assert f"t{form}: has no rows" in refused(*valid)


@pytest.mark.parametrize("proba", [False, True])
@pytest.mark.parametrize("ending", ["csv", "parquet", "feather", *exhaustive("arrow")])
def test_predictions_without_rows_can_be_read(tmp_path, plain, ending, proba):
    wine(5, 0).iloc[:0].drop(columns="quality").to_csv(tmp_path / "t.csv", index=False)
    out = tmp_path / f"p.{ending}"
    arguments = ("predict", plain[0] / "m.st", tmp_path / "t.csv", *["--proba"] * proba, "-o", out, "--json", "-")
    assert json.loads(invoke(*arguments).stdout)["rows"] == 0
    found = getattr(pd, f"read_{ending.replace('arrow', 'feather')}")(out)
    assert list(found) == ["bottle", "quality", *["proba_fair", "proba_good"] * proba] and len(found) == 0


def test_an_archive_without_rows_gives_predictions_without_rows(tmp_path):
    np.savez(tmp_path / "a.npz", X=np.arange(80.0).reshape(40, 2) % 7, y=np.arange(40) % 2)
    np.savez(tmp_path / "b.npz", X=np.zeros((0, 2)))
    invoke("train", tmp_path / "a.npz", *QUICK, "-o", tmp_path / "m.st")
    assert invoke("predict", tmp_path / "m.st", tmp_path / "b.npz").stdout == '"y"\n'


@pytest.mark.parametrize("text", ["[]", "{}", ""])
def test_a_document_without_names_is_empty(tmp_path, plain, text):
    (tmp_path / "t.json").write_text(text)
    assert "t.json: " in refused("predict", plain[0] / "m.st", tmp_path / "t.json")
