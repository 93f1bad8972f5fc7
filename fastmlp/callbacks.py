"""Callbacks for the `callbacks` parameter of the estimators; they are written in training/callbacks.py."""

from fastmlp.training.callbacks import Checkpoint, EpochInfo, LearningRateFinder, Logging, ProgressBar, TimeLimit

__all__ = ["Checkpoint", "EpochInfo", "LearningRateFinder", "Logging", "ProgressBar", "TimeLimit"]
