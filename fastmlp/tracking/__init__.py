"""Callbacks that hand epochs to other libraries; each imports its library when a fit begins.

Reading order: epoch.py (the numbers of an epoch, the parameters of a fit), optuna_pruning.py, mlflow_logger.py,
tensorboard_events.py, wandb_logger.py, movie.py (a film, drawn by the displays).
"""
