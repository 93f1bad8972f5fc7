"""Fitted networks joined to one estimator, as a fit with `n_ens` would have left it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sklearn.base import clone

from fastmlp.estimator.base import BaseNetwork

#: Fitted attributes that an ensemble shares with its networks.
_SHARED = (
    *("n_features_in_", "feature_names_in_", "classes_", "_label_binarizer"),
    *("n_layers_", "n_outputs_", "out_activation_", "target_range_"),
)


def as_ensemble(members: Sequence[Any]) -> Any:
    """Return an estimator of the members' class whose predictions are their mean; of one member, the member itself.

    Raises a ValueError if they are no estimators of fastmlp, or differ in their outputs.
    """
    first = members[0]
    if not isinstance(first, BaseNetwork):
        raise ValueError(f"only fastmlp's own estimators can be joined to one, not {type(first).__name__}")
    if len(members) == 1:
        return first
    links = {(member.out_activation_, member.n_outputs_) for member in members}
    if len(links) > 1:
        raise ValueError(f"the networks cannot be joined, because their outputs differ: {sorted(links)}")
    joined: Any = clone(first).set_params(n_ens=len(members), random_state=None)
    vars(joined).update({name: vars(first)[name] for name in _SHARED if name in vars(first)})
    joined.estimators_, joined._idle_predictions = list(members), []
    joined.n_iter_ = max(member.n_iter_ for member in members)
    return joined
