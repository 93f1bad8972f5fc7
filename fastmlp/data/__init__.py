"""Users' arrays made ready for the engines.

Reading order: targets.py (labels and values <-> what a network is trained on), inputs.py (validate, encode),
device_arrays.py (arrays that are on a GPU already), shared_rows.py (rows that several processes have), coded_rows.py
(tables, of one process or of several, coded); files.py writes files whole or not at all, optional.py imports packages
that may be absent, warned.py warns at the line of the user.
"""
