"""Pictures of networks and trainings, by scikit-learn's Display conventions; they need ``fastmlp[plot]``.

A class method makes and draws each display: ``from_estimator``, or one that takes raw data.  The display keeps its data
as attributes, and ``plot`` draws it again; ``ax_`` and ``figure_`` hold the last drawing.

==========================  ========================================================
:class:`LossCurveDisplay`   loss, score and learning rate over the epochs
:class:`NetworkDisplay`     layers, neurons, and the strongest weights
:class:`ActivationDisplay`  an activation and its slope, as the engine computes them
:class:`WeightsDisplay`     the weights of the first layer's neurons
==========================  ========================================================

matplotlib is imported when something is drawn.  What all four share is in _axes.py.
"""

from fastmlp.displays.activation import ActivationDisplay
from fastmlp.displays.loss_curve import LossCurveDisplay
from fastmlp.displays.network import NetworkDisplay
from fastmlp.displays.weights import WeightsDisplay

__all__ = ["ActivationDisplay", "LossCurveDisplay", "NetworkDisplay", "WeightsDisplay"]
