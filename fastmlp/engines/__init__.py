"""The engines: their table, what is made of their calls, and what this process runs on.

Reading order: backends.py (the table; finds an engine), by_name.py (single kernels), environment.py.

kernels/contract.py states the functions of every engine.
"""
