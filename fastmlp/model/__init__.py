"""A network and its weights, without training: what the engines are told.

Reading order: choices.py (names with parameters of their own), segments.py (the one declaration of the flat vector's
layout), network.py (widths, activations, loss, views of the flat vector), initialization.py (first weights), weights.py
(the flat vector behind ``coefs_`` and its kin).
"""
