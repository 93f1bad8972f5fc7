"""Render the formulas of formulas.py as a C header, and as modules for Numba on CPUs and GPUs.

Second station of the data flow: setup.py calls :func:`c_header` and compiles the result into every instruction set's
object; the engines of Numba write modules into the user's cache folder.  setup.py imports this package from the folder
kernels/, as ``codegen``, so that its files import each other relatively and nothing else of fastmlp.

Reading order: common.py (the formula language, the walk), c.py, numba.py, cuda.py (a target each), tensor_cores.py
(what cuda.py takes for tensor cores).
"""

from .c import MOST_PARAMETERS, MOST_STATES, c_header
from .common import CONSTANTS, FUNCTIONS, CFormula, FormulaError, reads_p, translate
from .cuda import CUDA_REGISTERS, CudaTile, cuda_module
from .numba import NETWORK_MARK, numba_formula, numba_head, numba_module, numba_network

__all__ = [
    "CONSTANTS",
    "CUDA_REGISTERS",
    "FUNCTIONS",
    "MOST_PARAMETERS",
    "MOST_STATES",
    "NETWORK_MARK",
    "CFormula",
    "CudaTile",
    "FormulaError",
    "c_header",
    "cuda_module",
    "numba_formula",
    "numba_head",
    "numba_module",
    "numba_network",
    "reads_p",
    "translate",
]
