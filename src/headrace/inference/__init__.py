"""Scoring of rows by a trained model, for any framework.

Worker processes import this too, so it imports pyflink only when a job is planned, and no
deep-learning framework at all.
"""

from __future__ import annotations

from headrace.inference.entry import ScoringEntry
from headrace.inference.inputs import Inputs
from headrace.inference.model import LoadedModel, Model, TensorSpec, absolute_path, is_uri
from headrace.inference.predict import OnError, predict
from headrace.inference.python_model import PythonModel
from headrace.inference.scoring_role import scoring_role
from headrace.inference.settings import ScoringSettings

__all__ = [
    "Inputs",
    "LoadedModel",
    "Model",
    "OnError",
    "PythonModel",
    "ScoringEntry",
    "ScoringSettings",
    "TensorSpec",
    "absolute_path",
    "is_uri",
    "predict",
    "scoring_role",
]
