"""Build of the compiled engine: render the formulas, compile one object per instruction set, link the extension.

Metadata lives in pyproject.toml.  Environment: FASTMLP_BUILD_ISAS="baseline avx2" limits the instruction sets,
FASTMLP_CFLAGS adds compiler flags (sanitizers, -Werror).  FASTMLP_PURE=1 compiles nothing: such an installation has
the engines that need no C compiler.
"""

import os
import platform
import sys
import tempfile
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_clib import build_clib
from setuptools.command.build_ext import build_ext

KERNELS = Path("kernels")
SOURCES = KERNELS / "cython"
GENERATED = SOURCES / "generated" / "formulas.h"
MSVC = sys.platform == "win32" and not os.environ.get("FASTMLP_GCC_LIKE")

# NaN and inf are data, so no -ffast-math.  These two let a conditional become a blend:
# -fno-math-errno (sqrt), -fno-trapping-math (comparisons).
BASE_FLAGS = [] if MSVC else ["-O3", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast"]
# GCC's partial redundancy elimination turns some conditionals back into branches; clang does not know the flag.
OPTIONAL_FLAGS = [] if MSVC else ["-fno-tree-pre", "-Wdouble-promotion"]
ISA_FLAGS = {
    "baseline": [],
    "avx2": ["-mavx2", "-mfma"],
    "avx512": ["-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl", "-mfma", "-mprefer-vector-width=512"],
}


def wanted_isas() -> list[str]:
    """Instruction sets to compile: more than the baseline on x86-64 with a GCC-like compiler only."""
    x86_64 = platform.machine().lower() in ("x86_64", "amd64")
    universal = "arm64" in os.environ.get("ARCHFLAGS", "")
    available = list(ISA_FLAGS) if x86_64 and not universal and not MSVC else ["baseline"]
    wanted = os.environ.get("FASTMLP_BUILD_ISAS", " ".join(available)).split()
    return [isa for isa in available if isa in wanted or isa == "baseline"]


def render_formulas() -> None:
    """Write generated/formulas.h if its text changed."""
    sys.path.insert(0, str(KERNELS.resolve()))
    try:
        import codegen
        import formulas
    finally:
        sys.path.pop(0)
    text = codegen.c_header(formulas)
    if not GENERATED.exists() or GENERATED.read_text() != text:
        GENERATED.parent.mkdir(exist_ok=True)
        GENERATED.write_text(text)


def accepts(compiler, flags: list[str]) -> bool:
    """True if the compiler takes these flags without a warning."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "flags.c"
        source.write_text("int main(void) { return 0; }\n")
        try:
            strict = [] if MSVC else ["-Werror"]
            compiler.compile([str(source)], output_dir=folder, extra_postargs=[*strict, *flags])
        except Exception:
            return False
    return True


class BuildKernels(build_clib):
    """Compiles the objects of every instruction set that the compiler can make."""

    def build_libraries(self, libraries):
        extra = [f for f in OPTIONAL_FLAGS if accepts(self.compiler, [f])]
        for name, build_info in libraries:
            isa = name.removeprefix("fastmlp_")
            if not accepts(self.compiler, ISA_FLAGS[isa]):
                raise SystemExit(
                    f"the compiler does not take {ISA_FLAGS[isa]}; build without them: "
                    f"FASTMLP_BUILD_ISAS={' '.join(i for i in wanted_isas() if i != isa)!r}"
                )
            build_info["cflags"] = [*build_info["cflags"], *extra]
        super().build_libraries(libraries)


class BuildEngine(build_ext):
    """Links the extension anew whenever a kernel library is newer."""

    def build_extension(self, ext):
        folder = Path(self.get_finalized_command("build_clib").build_clib)
        ext.depends = [*ext.depends, *map(str, folder.glob("*fastmlp_*"))]
        super().build_extension(ext)


def compiled() -> dict:
    """What setup() must know of the compiled engine."""
    import numpy as np
    from Cython.Build import cythonize

    render_formulas()
    isas = wanted_isas()
    cflags = os.environ.get("FASTMLP_CFLAGS", "").split()
    headers = sorted(str(p) for p in SOURCES.rglob("*.h"))
    kernels = [
        (
            f"fastmlp_{isa}",
            {
                "sources": [str(SOURCES / f"isa_{isa}.c")],
                "obj_deps": {"": headers},
                "include_dirs": [str(SOURCES)],
                "cflags": [*BASE_FLAGS, *ISA_FLAGS[isa], *cflags],
            },
        )
        for isa in isas
    ]
    engine = Extension(
        "fastmlp.kernels._engine",
        [str(SOURCES / name) for name in ("engine.pyx", "dispatch.c", "shuffle.c", "threads.c")],
        include_dirs=[np.get_include(), str(SOURCES)],
        define_macros=[
            ("NPY_NO_DEPRECATED_API", "NPY_1_7_API_VERSION"),
            *((f"FASTMLP_{isa.upper()}", "1") for isa in isas if isa != "baseline"),
        ],
        extra_compile_args=[*([] if MSVC else ["-O3", "-pthread"]), *cflags],
        extra_link_args=[*([] if MSVC else ["-pthread"]), *(f for f in cflags if f.startswith("-fsanitize"))],
        depends=headers,
    )
    commands = {"build_clib": BuildKernels, "build_ext": BuildEngine}
    return {"libraries": kernels, "ext_modules": cythonize(engine), "cmdclass": commands}


if os.environ.get("FASTMLP_PURE", "") not in ("", "0"):
    print("FASTMLP_PURE is set: the Cython engine is left out")
    setup()
else:
    setup(**compiled())
