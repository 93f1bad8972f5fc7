"""Save and load fitted estimators: everything that predictions, warm starts and, if asked for, partial_fit depend on.

::

    save -> model_writer -> modelfile  ...  modelfile -> model_reader -> load
"""

from __future__ import annotations

import os
from typing import Any

from fastmlp.estimator.pickled import InconsistentVersionWarning
from fastmlp.estimators import MLPClassifier, MLPRegressor  # and enters the classes that a file may name
from fastmlp.saving import model_reader, modelfile
from fastmlp.saving.model_writer import save
from fastmlp.saving.modelfile import ModelFileError
from fastmlp.tabular_estimators import RealMLPClassifier, RealMLPRegressor, TabMClassifier, TabMRegressor

#: What a file holds.
Saved = MLPClassifier | MLPRegressor | RealMLPClassifier | RealMLPRegressor | TabMClassifier | TabMRegressor

__all__ = ["InconsistentVersionWarning", "ModelFileError", "load", "read_metadata", "save"]


def load(path: str | os.PathLike[str], *, trust_formulas: bool = False) -> Saved:
    """Read an estimator that :func:`save` wrote; nothing in a file is ever executed.

    Parameters
    ----------
    path : str or path-like
    trust_formulas : bool, default=False
        Whether to compile formulas of the user's own (:func:`fastmlp.activation`, :func:`fastmlp.loss`) that the file
        holds.  They can compute with numbers and nothing else; if left out the error shows their text.

    Returns
    -------
    MLPClassifier, MLPRegressor, RealMLPClassifier, RealMLPRegressor, TabMClassifier or TabMRegressor
        With the same parameters, fitted attributes and predictions, bit for bit.

    Raises
    ------
    ModelFileError
        If the file is no saved model, was cut short or altered, has another major version, holds anything unknown or
        contradictory, or formulas that are not trusted; the message names the file, the field and the reason.
    ImportError
        If safetensors is not installed.
    OSError
        If there is no such file, or it cannot be opened.
    """
    return model_reader.build(modelfile.read(path), os.fspath(path), trust_formulas)


def read_metadata(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return what :func:`save` was given as `metadata`; the weights are not read.

    Parameters
    ----------
    path : str or path-like

    Returns
    -------
    dict
        Empty if nothing was given.

    Raises
    ------
    ModelFileError
        If the file is no saved model, or its header was altered.
    OSError
        If there is no such file, or it cannot be opened.
    """
    return model_reader.section_of(modelfile.read_header(path), path, "metadata", dict)
