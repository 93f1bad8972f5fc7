"""The engines: backends.py is the table of them and finds one; environment.py says what this process
runs on: machine, versions, engines, instruction set, BLAS.

What every engine offers is stated in kernels/contract.py.
"""
