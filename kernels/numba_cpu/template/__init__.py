"""What Numba compiles, in parts that codegen joins into one module for each dtype: nothing here is imported.

math.py, intrinsics and elementary functions, is in front of every generated module.  Behind it the driver has these
parts, in reading order: tables (of integers: sizes and addresses), teams (threads), products, rows (of the caller),
stages (between two products), losses, updates (gradients, optimizers), network (an epoch, prediction).  A part's star
imports say which parts its names come from.
"""
