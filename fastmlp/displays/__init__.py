"""Pictures of networks and trainings, by scikit-learn's Display conventions; they need ``fastmlp[plot]``.

Each display is made by a class method that draws it, ``from_estimator`` or one that takes raw data, keeps what it shows
as attributes, and draws it again with ``plot``; ``ax_`` and ``figure_`` are where it was drawn last.

==========================  ========================================================
:class:`LossCurveDisplay`   loss, score and learning rate over the epochs
:class:`NetworkDisplay`     layers, units, and the strongest weights between them
:class:`ActivationDisplay`  an activation and its slope, as the engine computes them
:class:`WeightsDisplay`     the weights of first-layer units as images
==========================  ========================================================

matplotlib is imported when something is drawn.  What all four share is in _axes.py.
"""

from fastmlp.displays.activation import ActivationDisplay
from fastmlp.displays.loss_curve import LossCurveDisplay
from fastmlp.displays.network import NetworkDisplay
from fastmlp.displays.weights import WeightsDisplay

__all__ = ["ActivationDisplay", "LossCurveDisplay", "NetworkDisplay", "WeightsDisplay"]
