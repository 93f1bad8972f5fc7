"""The folders of the package: arrows of imports point one way, and files and functions fit on their pages.

The order of the folders is read from the first table of docs/architecture.md. An import at the top of a module makes an
eager arrow; an import inside a function, and a module named as a whole text (the tables from which modules are loaded
by name), make a lazy one. What stands under ``if TYPE_CHECKING`` is for type checkers alone, and makes none.
"""

import ast
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import fastmlp
from fastmlp import sklearn_compat

ROOT = Path(__file__).parent.parent
ROOTS = {"fastmlp": ROOT / "fastmlp", "fastmlp.kernels": ROOT / "kernels"}

#: Modules whose purpose is to lead to places below their own, when they are asked to -> those places.
LEADS_BELOW = {"fastmlp.estimator.methods": {"saving", "export"}}

LONGEST_FILE = 600
LONGEST_FUNCTION = 60  # with its docstring, unless the code alone is short
SHORT_CODE = 40
#: Files that may be longer -> why.
LONG_FILES = {
    "kernels/reference.py": "the judge repeats all the mathematics in one place, to be read beside a textbook",
    "kernels/formulas.py": "the table of all formulas",
}

FILES = {
    ".".join((package, *path.relative_to(folder).with_suffix("").parts)).removesuffix(".__init__"): path
    for package, folder in ROOTS.items()
    for path in sorted(folder.rglob("*.py"))
}
MODULES = {*FILES, "fastmlp.kernels._engine"}


@dataclass(frozen=True, order=True)
class Arrow:
    """One import: who imports, where, what."""

    importer: str
    line: int
    imported: str
    lazy: bool = False
    by_name: bool = False  # a text from which a module is loaded

    def __str__(self) -> str:
        """Return the arrow as a reader looks for it: `module:line -> module`."""
        return f"{self.importer}:{self.line} -> {self.imported}{' (lazy)' if self.lazy else ''}"


@dataclass(frozen=True)
class Scope:
    """The file that is walked; `package` is what its relative imports start from."""

    module: str
    package: str


# --- the graph --------------------------------------------------------------------------------------------------------


def arrows_of(module: str, source: str, is_package: bool = False) -> list[Arrow]:
    """Return the arrows from one module to others of ours, sorted."""
    scope = Scope(module, module if is_package else module.rpartition(".")[0])
    found = set(_walk(ast.parse(source), scope, lazy=False))
    return sorted(arrow for arrow in found if arrow.imported != module)


def _walk(node: ast.AST, scope: Scope, lazy: bool) -> Iterator[Arrow]:
    if isinstance(node, ast.Import):
        yield from (Arrow(scope.module, node.lineno, a.name, lazy) for a in node.names if a.name in MODULES)
    elif isinstance(node, ast.ImportFrom):
        for name in _imported(node, scope.package):
            yield Arrow(scope.module, node.lineno, name, lazy)
    elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "fastmlp" and node.attr in fastmlp._MODULES:
        yield Arrow(scope.module, node.lineno, fastmlp._MODULES[node.attr], lazy)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.partition(":")[0] in MODULES:
        yield Arrow(scope.module, node.lineno, node.value.partition(":")[0], True, by_name=True)
    inside = lazy or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
    for child in _children(node):
        yield from _walk(child, scope, inside)


def _children(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
            yield from child.orelse
        else:
            yield child


def _imported(node: ast.ImportFrom, package: str) -> Iterator[str]:
    """Modules that `from ... import ...` loads; a public name of the package stands for the module that has it."""
    parts = package.split(".")
    start = ".".join(parts[: len(parts) - node.level + 1]) if node.level else ""
    base = ".".join(filter(None, (start, node.module)))
    for alias in node.names:
        name = f"{base}.{alias.name}"
        if name in MODULES:
            yield name
        elif base == "fastmlp" and alias.name in fastmlp._MODULES:
            yield fastmlp._MODULES[alias.name]
        elif base in MODULES and base != "fastmlp":
            yield base


GRAPH = [
    arrow
    for module, path in FILES.items()
    for arrow in arrows_of(module, path.read_text(encoding="utf-8"), path.name == "__init__.py")
]


# --- what `import fastmlp` leads to -----------------------------------------------------------------------------------


def test_modules_load_when_they_are_asked_for():
    """In a process that has imported nothing else; the import itself stays cheap."""
    code = (
        "import sys, fastmlp; early = [m for m in sys.modules if m.startswith(('numpy', 'sklearn', 'fastmlp.'))];"
        "print(early, fastmlp.engines.__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["[]", "fastmlp.engines"]
    for name in fastmlp._SUBMODULES:
        assert fastmlp.__getattr__(name) is sys.modules[f"fastmlp.{name}"] is getattr(fastmlp, name)


def test_modules_of_the_reference_are_listed():
    """Every module that docs/api.md names, directly or as ``fastmlp.training.checkpoint.save``, is an attribute."""
    text = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    first_parts = set(re.findall(r"^(?:.. currentmodule:: fastmlp\.|   )([a-z_]+)\b(?=[.\n])", text, re.MULTILINE))
    named = {part for part in first_parts if f"fastmlp.{part}" in MODULES}
    assert {"callbacks", "displays", "export", "persistence"} <= named <= {*dir(fastmlp)}
    assert {*fastmlp._SUBMODULES, *fastmlp.__all__} == {*dir(fastmlp)}
    with pytest.raises(AttributeError, match="module 'fastmlp' has no attribute 'nothing'"):
        fastmlp.nothing  # noqa: B018


def test_type_checkers_are_told_the_names_that_load_later():
    tree = ast.parse((ROOT / "fastmlp" / "__init__.py").read_text(encoding="utf-8"))
    told = {
        alias.asname or alias.name: node.module
        for block in tree.body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert told == fastmlp._MODULES | dict.fromkeys(fastmlp._SUBMODULES, "fastmlp")


# --- the layers -------------------------------------------------------------------------------------------------------


def layers(document: str) -> dict[str, int]:
    """Return place -> rank, as the first table of the document states them; places in one row have the same rank."""
    table = document.split("| place | what it holds |\n|---|---|\n", 1)[1].split("\n\n", 1)[0]
    cells = [row.split("|")[1] for row in table.splitlines()]
    return {place_of(path): rank for rank, cell in enumerate(cells) for path in re.findall(r"`([^`]+)`", cell)}


def place_of(path: str) -> str:
    """Return the place of a path as the document writes it: `fastmlp/model/` and `fastmlp/estimators.py` alike."""
    return path.strip("/").removesuffix(".py").rpartition("/")[2]


#: The package itself comes first: importing it imports nothing; its public names count as the modules that have them.
RANKS = {"": -1} | layers((ROOT / "docs" / "architecture.md").read_text(encoding="utf-8"))


def place(module: str) -> str:
    """Return the place that a module is in: the name below `fastmlp`."""
    return module.partition(".")[2].partition(".")[0]


def wrong_way(arrows: list[Arrow]) -> list[str]:
    """Return the arrows that point from a place to one below it, but for those in LEADS_BELOW."""
    return [
        f"{arrow}: {place(arrow.imported)} stands below {place(arrow.importer)} in docs/architecture.md"
        for arrow in arrows
        if arrow.importer != "fastmlp"  # leads to the public names, when they are asked for
        and RANKS[place(arrow.imported)] > RANKS[place(arrow.importer)]
        and not (arrow.lazy and place(arrow.imported) in LEADS_BELOW.get(arrow.importer, ()))
    ]


def circles(arrows: list[Arrow]) -> list[str]:
    """Return the arrows that lie on a circle: from their end a path of imports leads back to their beginning."""
    targets: dict[str, set[str]] = {}
    for arrow in arrows:
        targets.setdefault(arrow.importer, set()).add(arrow.imported)
    return [str(arrow) for arrow in arrows if arrow.importer in _reached(arrow.imported, targets)]


def _reached(start: str, targets: dict[str, set[str]]) -> set[str]:
    seen, open_ends = {start}, [start]
    while open_ends:
        new = targets.get(open_ends.pop(), set()) - seen
        seen |= new
        open_ends += new
    return seen


def test_every_module_has_a_place():
    assert {place(module) for module in FILES} == set(RANKS)
    assert [str(arrow) for arrow in GRAPH if arrow.importer == "fastmlp" and not arrow.lazy] == []


def test_imports_point_one_way():
    assert wrong_way(GRAPH) == []


def test_no_circles():
    assert circles([arrow for arrow in GRAPH if not arrow.by_name]) == []


def test_modules_that_lead_below_still_do():
    leads = {(a.importer, place(a.imported)) for a in GRAPH if a.lazy and a.importer in LEADS_BELOW}
    missing = {(module, to) for module, places in LEADS_BELOW.items() for to in places} - leads
    assert not missing, f"take these out of LEADS_BELOW: {sorted(missing)}"


# What the tests above must notice: (module, source, arrows that point the wrong way).
PLANTED = {
    "from a folder": ("fastmlp.model.a", "from fastmlp.training import run", 1),
    "of a name": ("fastmlp.training.a", "from fastmlp.estimator.base import Extras", 1),
    "import": ("fastmlp.kernels.a", "import fastmlp.model.network", 1),
    "relative": ("fastmlp.data.a", "from ..training.run import Run", 1),
    "public name": ("fastmlp.saving.a", "from fastmlp import load", 1),
    "attribute": ("fastmlp.data.a", "import fastmlp\nfastmlp.MLPClassifier()", 1),
    "in a class": ("fastmlp.model.a", "class A:\n    from fastmlp.training import run", 1),
    "lazy": ("fastmlp.model.a", "def f():\n    from fastmlp.training import run", 1),
    "by name": ("fastmlp.model.a", "import_module('fastmlp.training.run')", 1),
    "in a table": ("fastmlp.bench.a", "T = {'a': 'fastmlp.cli.app:app'}", 1),
    "from methods, eager": ("fastmlp.estimator.methods", "from fastmlp.export.c import to_c", 1),
    "from methods, elsewhere": ("fastmlp.estimator.methods", "def f():\n    import fastmlp.cli.app", 1),
    "from methods": ("fastmlp.estimator.methods", "def f():\n    from fastmlp.export.c import to_c", 0),
    "for types": ("fastmlp.model.a", "if TYPE_CHECKING:\n    from fastmlp.training import run", 0),
    "version": ("fastmlp.model.a", "from fastmlp import __version__", 0),
    "the right way": ("fastmlp.training.a", "from fastmlp.model.network import Network", 0),
}


@pytest.mark.parametrize("case", PLANTED)
def test_a_planted_arrow_is_noticed(case):
    module, source, n = PLANTED[case]
    assert len(wrong_way(arrows_of(module, source))) == n


def test_a_planted_circle_is_noticed():
    planted = arrows_of("fastmlp.model.segments", "def f():\n    from fastmlp.model.network import Network")
    assert circles([a for a in GRAPH if not a.by_name] + planted) != []


# --- scikit-learn's private names -------------------------------------------------------------------------------------


def private_imports(source: str) -> list[str]:
    """Return the names that are not public among those that a file imports from scikit-learn."""
    names = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "sklearn":
            names += [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names += [alias.name for alias in node.names if alias.name.split(".")[0] == "sklearn"]
    return sorted(name for name in names if "._" in name)


def test_private_names_of_sklearn_are_imported_in_one_file():
    private = {str(path.relative_to(ROOT)): private_imports(path.read_text("utf-8")) for path in FILES.values()}
    assert [path for path, names in private.items() if names] == ["fastmlp/sklearn_compat.py"], private


def test_sklearn_has_what_the_one_file_imports():
    assert set(sklearn_compat.__all__) == set(sklearn_compat._MODULES)
    declared = private_imports(FILES["fastmlp.sklearn_compat"].read_text("utf-8"))
    lazy = sorted(f"{module}.{name}" for name, module in sklearn_compat._MODULES.items())
    assert declared == [name for name in lazy if "._" in name]
    for name in sklearn_compat.__all__:
        assert callable(getattr(sklearn_compat, name)), name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        sklearn_compat.nothing  # noqa: B018


# --- types of the compiled engine -------------------------------------------------------------------------------------


def test_stub_of_the_compiled_engine_states_its_functions():
    from fastmlp.kernels import _engine

    stub = ast.parse((ROOT / "kernels" / "_engine.pyi").read_text("utf-8"))
    stated = {
        node.name: [argument.arg for argument in node.args.args]
        for node in stub.body
        if isinstance(node, ast.FunctionDef)
    }
    own = {name: f for name, f in vars(_engine).items() if getattr(f, "__module__", "") == _engine.__name__}
    found = {
        name: list(inspect.signature(f).parameters)
        for name, f in own.items()
        if not inspect.isclass(f) and not name.startswith("__")
    }
    assert stated == found


# --- sizes ------------------------------------------------------------------------------------------------------------


def long_functions(source: str) -> Iterator[str]:
    """Names and lengths of the functions that do not fit on a screen."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length, first = node.end_lineno - node.lineno + 1, node.body[0]
            text = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
            code = length - (first.end_lineno - first.lineno + 1 if text and len(node.body) > 1 else 0)
            if length > LONGEST_FUNCTION and code >= SHORT_CODE:
                yield f"{node.name}, {length} lines, {code} without its docstring"


MEASURED = [path for folder in ("fastmlp", "kernels", "bench") for path in sorted((ROOT / folder).rglob("*.py"))]


def test_functions_fit_on_a_screen():
    found = [
        f"{path.relative_to(ROOT)}: {text}" for path in MEASURED for text in long_functions(path.read_text("utf-8"))
    ]
    assert found == []


def test_files_are_short():
    lengths = {path.relative_to(ROOT).as_posix(): len(path.read_text("utf-8").splitlines()) for path in MEASURED}
    long = {path: n for path, n in lengths.items() if n > LONGEST_FILE and path not in LONG_FILES}
    assert long == {}
    assert set(LONG_FILES) <= set(lengths)


def test_a_long_function_is_noticed():
    body, doc = "    x = 1\n", '    """Do.\n' + "\n" * 70 + '    """\n'
    assert not list(long_functions("def f():\n" + body * 59))
    assert list(long_functions("def f():\n" + body * 60))
    assert not list(long_functions("def f():\n" + doc + body * 38))
    assert list(long_functions("def f():\n" + doc + body * 39))
