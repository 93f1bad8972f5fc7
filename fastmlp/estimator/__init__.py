"""What the estimators share.

Reading order: base.py (``fit`` from data to fitted weights), parameters.py (constraints and texts), types.py (what type
checkers know of them), mistakes.py (what was probably meant by an argument that does not exist), flat_parameters.py
(``loss__gamma`` in get_params and set_params), earlier.py (parameters as earlier files and pickles have them),
pickled.py (pickles of other versions), architecture.py (the network of an estimator), ensemble.py (several networks as
one estimator), prediction.py (repeated predictions), class_targets.py (what classifiers share), inside.py (outputs of
layers, gradients, weights, single steps), methods.py (the other methods of estimators; each calls a module above),
description.py (the summary of a network). Estimators for tables: recipes.py (published values),
tabular_parameters.py (constraints and texts), tables.py (users' tables, validated), tabular.py (their
steps of ``fit``, and predictions).
"""
