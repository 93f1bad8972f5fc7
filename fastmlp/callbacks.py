"""Callbacks for the `callbacks` parameter of the estimators; they are written in training/."""

from fastmlp.training.callbacks import Checkpoint, EpochInfo, Logging, ProgressBar, TimeLimit
from fastmlp.training.learning_rate_finder import LearningRateFinder

__all__ = ["Checkpoint", "EpochInfo", "LearningRateFinder", "Logging", "ProgressBar", "TimeLimit"]
