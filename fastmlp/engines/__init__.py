"""The engines: backends.py has their table and finds one; environment.py says what this process runs on.

kernels/contract.py states the functions of every engine.
"""
