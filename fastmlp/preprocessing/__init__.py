"""Tables in memory -> the matrix that a network reads: categories, missing values, scaling.

Reading order: frames.py (arrays of NumPy, frames of pandas and polars, tables of pyarrow -> columns of numbers or
categories), statistics.py (scales, quantiles and bins, and their formulas), learned.py (what is kept of each column, as
plain values), learning.py (from the training rows to that), layout.py (which column of the matrix holds what, and the
blocks of the network that read them), coder.py (:class:`~fastmlp.preprocessing.coder.ColumnCoder`, the whole).

All that depends on a column alone is done here, once, before training. Everything with weights is the engine's.
"""
