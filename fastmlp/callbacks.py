"""Callbacks for the `callbacks` parameter of the estimators; they are written in training/ and tracking/."""

from fastmlp.tracking.mlflow_logger import MlflowLogger
from fastmlp.tracking.movie import TrainingMovie
from fastmlp.tracking.optuna_pruning import OptunaPruning
from fastmlp.tracking.tensorboard_events import TensorBoard
from fastmlp.tracking.wandb_logger import WandbLogger
from fastmlp.training.callbacks import Checkpoint, EpochInfo, Logging, ProgressBar, TimeLimit
from fastmlp.training.learning_rate_finder import LearningRateFinder
from fastmlp.training.recorder import Recorder

__all__ = [
    "Checkpoint",
    "EpochInfo",
    "LearningRateFinder",
    "Logging",
    "MlflowLogger",
    "OptunaPruning",
    "ProgressBar",
    "Recorder",
    "TensorBoard",
    "TimeLimit",
    "TrainingMovie",
    "WandbLogger",
]
