"""The engines: backends.py has their table and finds one; threads.py says how many threads a fit may use.

kernels/contract.py states the functions of every engine.
"""
