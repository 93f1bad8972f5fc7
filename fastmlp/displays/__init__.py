"""Pictures of networks and trainings, by scikit-learn's Display conventions; they need ``fastmlp[plot]``.

A class method makes and draws each display: ``from_estimator``, or one that takes raw data.  The display keeps its data
as attributes, and ``plot`` draws it again; ``ax_`` and ``figure_`` hold the last drawing.

============================  ========================================================
:class:`LossCurveDisplay`     loss, score and learning rate over the epochs
:class:`NetworkDisplay`       layers, neurons, and the strongest weights
:class:`ActivationDisplay`    an activation and its slope, as the engine computes them
:class:`LossShapeDisplay`     a loss and its slope over the prediction, likewise
:class:`WeightsDisplay`       the weights of the first layer's neurons
:class:`UnitDisplay`          what the neurons of a layer answer to
:class:`GradientFlowDisplay`  norms of the gradients, layer by layer
:class:`LossSurfaceDisplay`   the loss over weights, with paths of descent
:class:`ClassAccuracyDisplay` the accuracy of each class
:class:`PredictionsDisplay`   predictions row by row, errors marked
============================  ========================================================

matplotlib is imported when something is drawn.  What all share is in _axes.py; images side by side are drawn by
_mosaic.py; descent.py finds paths, and weight_plane.py their places among the weights.
"""

from fastmlp.displays.activation import ActivationDisplay
from fastmlp.displays.class_accuracy import ClassAccuracyDisplay
from fastmlp.displays.gradient_flow import GradientFlowDisplay
from fastmlp.displays.loss_curve import LossCurveDisplay
from fastmlp.displays.loss_shape import LossShapeDisplay
from fastmlp.displays.loss_surface import LossSurfaceDisplay
from fastmlp.displays.network import NetworkDisplay
from fastmlp.displays.predictions import PredictionsDisplay
from fastmlp.displays.units import UnitDisplay
from fastmlp.displays.weights import WeightsDisplay

__all__ = [
    "ActivationDisplay",
    "ClassAccuracyDisplay",
    "GradientFlowDisplay",
    "LossCurveDisplay",
    "LossShapeDisplay",
    "LossSurfaceDisplay",
    "NetworkDisplay",
    "PredictionsDisplay",
    "UnitDisplay",
    "WeightsDisplay",
]
