"""The engines: backends.py is the table of them and finds one; threads.py says how many threads a fit may use.

What every engine offers is stated in kernels/contract.py.
"""
