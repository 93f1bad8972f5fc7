"""A network and its weights, without training: the input of the engines.

Reading order: spelling.py (what other libraries call the names), choices.py (specs: names with parameters), stages.py
(the options of its layers), segments.py (the one declaration of the flat vector's layout), network.py (widths,
activations, loss, views of the flat vector), initialization.py and tabular_initialization.py (first weights),
weights.py (the flat vector behind ``coefs_`` and the other arrays).
"""
