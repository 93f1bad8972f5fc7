"""Build of the compiled engine: render the headers, compile all objects side by side, link the extension.

Metadata lives in pyproject.toml.  Environment:

FASTMLP_PURE=1                        compile nothing: the installation has the engines that need no C compiler
FASTMLP_BUILD_ISAS="baseline avx2"    limit the instruction sets
FASTMLP_CFLAGS="-g -Werror"           add compiler flags (sanitizers, debug information, warnings as errors)
MAX_JOBS=1                            limit the compilers that run at a time; default: one per processor
"""

import copy
import os
import platform
import sys
import sysconfig
import tempfile
import zlib
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path
from typing import NamedTuple

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError
from setuptools.modified import newer_group

KERNELS = Path("kernels")
SOURCES = KERNELS / "cython"
GENERATED = SOURCES / "generated"
MATRIX_UNITS = SOURCES / "matrix_units.c"
MSVC = sys.platform == "win32" and not os.environ.get("FASTMLP_GCC_LIKE")
USER_FLAGS = os.environ.get("FASTMLP_CFLAGS", "").split()

# -g0: debug information costs an eighth of the compile time and three quarters of the size.
# NaN and inf are data, so no -ffast-math.  These two let a conditional become a blend:
# -fno-math-errno (sqrt), -fno-trapping-math (comparisons).
BASE_FLAGS = [] if MSVC else ["-O3", "-g0", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast"]
# GCC's partial redundancy elimination turns some conditionals back into branches; clang does not know the flag.
OPTIONAL_FLAGS = [] if MSVC else ["-fno-tree-pre", "-Wdouble-promotion"]
ISA_FLAGS = {
    "baseline": [],
    "avx2": ["-mavx2", "-mfma"],
    "avx512": ["-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl", "-mfma", "-mprefer-vector-width=512"],
}
# Matrix units stand beside the kernels of AVX-512.  Their code is left out where compiler or assembler do not know
# them, and where the system would not be asked for its permission (dispatch.c).
ISA_FLAGS["amx"] = [*ISA_FLAGS["avx512"], "-mamx-tile", "-mamx-bf16"]
AMX_CODE = 'int main(void) { __asm__ volatile("tdpbf16ps %tmm2, %tmm1, %tmm0"); return 0; }\n'
# The Python border checks and hands over; its calls are as fast with -O1 as with -O2.
BORDER_FLAGS = [] if MSVC else ["-O1", "-g0", "-pthread"]
C_FLAGS = [] if MSVC else ["-O3", "-g0", "-pthread"]


class Unit(NamedTuple):
    """One object file: a source, and the flags and macros that it is compiled with."""

    source: Path
    flags: list[str]
    macros: list[tuple[str, str]]

    def folder(self, compiler: str) -> str:
        """Return the name of the object's folder; other flags mean another folder, so no object is ever stale."""
        return f"{self.source.stem}-{zlib.crc32(f'{compiler} {self!r}'.encode()):08x}"


def wanted_isas() -> list[str]:
    """Return the instruction sets to compile: more than the baseline only on x86-64 with a GCC-like compiler."""
    x86_64 = platform.machine().lower() in ("x86_64", "amd64")
    universal = "arm64" in os.environ.get("ARCHFLAGS", "")
    available = list(ISA_FLAGS) if x86_64 and not universal and not MSVC else ["baseline"]
    wanted = os.environ.get("FASTMLP_BUILD_ISAS", " ".join(available)).split()
    if "avx512" not in wanted or not sys.platform.startswith("linux"):
        available = [isa for isa in available if isa != "amx"]
    return [isa for isa in available if isa in wanted or isa == "baseline"]


def known_isas(compiler) -> list[str]:
    """Return the instruction sets to compile; the compiler must know all of them, except matrix units."""
    known = []
    for isa in wanted_isas():
        if accepts(compiler, ISA_FLAGS[isa], AMX_CODE if isa == "amx" else NO_CODE):
            known.append(isa)
        elif isa != "amx" or isa in os.environ.get("FASTMLP_BUILD_ISAS", "").split():
            others = " ".join(i for i in wanted_isas() if i != isa)
            raise SystemExit(
                f"the compiler does not take {ISA_FLAGS[isa]}; build without them: FASTMLP_BUILD_ISAS={others!r}"
            )
    return known


def render_headers() -> None:
    """Write generated/formulas.h and layer.h where their text changed."""
    sys.path.insert(0, str(KERNELS.resolve()))
    try:
        import codegen
        import formulas
        import layer_table
    finally:
        sys.path.pop(0)
    GENERATED.mkdir(exist_ok=True)
    for name, text in (("formulas.h", codegen.c_header(formulas)), ("layer.h", layer_table.c_header())):
        header = GENERATED / name
        if not header.exists() or header.read_text() != text:
            header.write_text(text)


NO_CODE = "int main(void) { return 0; }\n"


def accepts(compiler, flags: list[str], code: str = NO_CODE) -> bool:
    """Return whether the compiler takes these flags, and this code with them, without a warning."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "flags.c"
        source.write_text(code)
        try:
            strict = [] if MSVC else ["-Werror"]
            compiler.compile([str(source)], output_dir=folder, extra_postargs=[*strict, *flags])
        except Exception:
            return False
    return True


def kernel_units(compiler, known: list[str]) -> list[Unit]:
    """Return one unit per instruction set and dtype, and those of matrix units: their emulation, and the real ones."""
    optional = [flag for flag in OPTIONAL_FLAGS if accepts(compiler, [flag])]
    units = []
    for isa in reversed(known):  # the slowest to compile first
        flags = [*BASE_FLAGS, *ISA_FLAGS[isa], *optional, *USER_FLAGS]
        if isa == "amx":
            units.append(Unit(MATRIX_UNITS, flags, []))
        else:
            units += [Unit(SOURCES / f"isa_{isa}.c", flags, [("FASTMLP_DOUBLE", is_double)]) for is_double in "10"]
    return [*units, Unit(MATRIX_UNITS, flags, [("FASTMLP_EMULATED", "1")])]  # with the flags of the baseline


def border_units(known: list[str]) -> list[Unit]:
    """Return the units that every build has: the Python border first, then the C files beside it."""
    isas = [(f"FASTMLP_{isa.upper()}", "1") for isa in known if isa != "baseline"]
    numpy_api = [("NPY_NO_DEPRECATED_API", "NPY_1_7_API_VERSION")]
    flags = [*C_FLAGS, *USER_FLAGS]
    return [
        Unit(SOURCES / "engine.c", [*BORDER_FLAGS, *USER_FLAGS], numpy_api),
        Unit(SOURCES / "dispatch.c", flags, isas),
        Unit(SOURCES / "lbfgs.c", flags, []),
        Unit(SOURCES / "shuffle.c", flags, []),
        Unit(SOURCES / "threads.c", flags, []),
    ]


class BuildEngine(build_ext):
    """Compiles the objects that are older than what they are made of, several at a time, and links them."""

    def finalize_options(self):
        """Keep objects in one folder for all kinds of installation; an editable one would take a temporary folder."""
        super().finalize_options()
        python = sysconfig.get_config_var("EXT_SUFFIX").split(".")[1]  # version, with the GIL or without it, platform
        self.build_temp = str(Path("build", f"objects.{self.plat_name}-{python}"))

    def build_extension(self, ext):
        render_headers()
        known = known_isas(self.compiler)
        [border, *beside] = border_units(known)
        # the border first: Cython writes its C before the compiler can begin
        units = [border, *kernel_units(self.compiler, known), *beside]
        with ThreadPoolExecutor(self.workers()) as pool:
            futures = [pool.submit(self.compile_unit, unit) for unit in units]
            try:
                wait(futures, return_when=FIRST_EXCEPTION)
            finally:
                pool.shutdown(cancel_futures=True)
        for future in futures:
            if not future.cancelled() and future.exception():
                raise future.exception()
        linked = copy.copy(ext)
        linked.sources, linked.extra_objects = [], [future.result() for future in futures]
        self.force = True  # linking takes a moment; objects of other flags may be older than the extension
        super().build_extension(linked)

    def workers(self) -> int:
        """Return how many objects to compile at a time."""
        chosen = self.parallel if isinstance(self.parallel, int) and self.parallel is not True else None
        return max(1, chosen or int(os.environ.get("MAX_JOBS") or os.cpu_count() or 1))

    def translate_border(self, target: Path) -> None:
        """Have Cython write engine.c if one of its parts is newer."""
        from Cython.Build import cythonize

        border = SOURCES / "engine.pyx"
        parts = [border, *SOURCES.glob("*.pxi"), *SOURCES.glob("*.pxd")]
        if self.force or newer_group(list(map(str, parts)), str(target)):
            cythonize(Extension("fastmlp.kernels._engine", [str(border)]), include_path=[str(SOURCES)], force=True)

    def compile_unit(self, unit: Unit) -> str:
        """Return the path of the unit's object, compiled anew where a source is newer."""
        import numpy as np

        if unit.source.stem == "engine":
            self.translate_border(unit.source)
        compiler = repr(getattr(self.compiler, "compiler_so", None))
        folder = str(Path(self.build_temp) / unit.folder(compiler))
        [made] = self.compiler.object_filenames([str(unit.source)], output_dir=folder)
        headers = sorted(map(str, SOURCES.rglob("*.h")))
        if self.force or newer_group([str(unit.source), *headers], made):
            try:
                self.compiler.compile(
                    [str(unit.source)],
                    output_dir=folder,
                    macros=unit.macros,
                    include_dirs=[*self.include_dirs, str(SOURCES), np.get_include()],
                    debug=self.debug,
                    extra_postargs=unit.flags,
                )
            except CompileError as error:
                made_with = " ".join(f"{name}={value}" for name, value in unit.macros)
                raise CompileError(f"{unit.source} {made_with} could not be compiled: {error}") from error
        return made


def compiled() -> dict:
    """Return what setup() must know of the compiled engine."""
    sources = [SOURCES / "engine.pyx", *(unit.source for unit in border_units([])[1:]), MATRIX_UNITS]
    sources += [SOURCES / f"isa_{isa}.c" for isa in wanted_isas() if isa != "amx"]
    pthread = [] if MSVC else ["-pthread"]
    sanitizers = [flag for flag in USER_FLAGS if flag.startswith("-fsanitize")]
    engine = Extension("fastmlp.kernels._engine", list(map(str, sources)), extra_link_args=[*pthread, *sanitizers])
    return {"ext_modules": [engine], "cmdclass": {"build_ext": BuildEngine}}


if os.environ.get("FASTMLP_PURE", "") not in ("", "0"):
    print("FASTMLP_PURE is set: the Cython engine is left out")
    setup()
else:
    setup(**compiled())
