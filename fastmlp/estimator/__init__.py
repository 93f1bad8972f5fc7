"""What MLPClassifier and MLPRegressor share.

Reading order: base.py (``fit`` from data to fitted weights), parameters.py (constraints and texts), flat_parameters.py
(``loss__gamma`` of get_params and set_params), architecture.py (the network of an estimator), prediction.py (repeated
predictions), methods.py (what estimators can do besides; each method leads to a module above), description.py (the
summary of a network).
"""
