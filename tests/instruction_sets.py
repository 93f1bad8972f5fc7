"""Instruction sets of the compiled engine: those with kernels of their own, and those with units beside AVX-512's."""

#: Rows of the table of instruction sets that have matrix units.
WITH_UNITS = ("avx512bf16", "amx")


def with_own_kernels(engine):
    """Return the names of the usable instruction sets without matrix units, the fastest last."""
    return [name for name in engine.isas() if name not in WITH_UNITS]
