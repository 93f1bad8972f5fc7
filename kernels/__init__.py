"""All numerics of fastmlp: formulas, their rendering, the reference and the engines.

Imported as ``fastmlp.kernels``.  Reading order: contract.py (what every engine offers), formulas.py (what is
computed), reference.py (the same, stated by a textbook), codegen/ (formulas -> C), cython/ (the compiled engine).
"""
