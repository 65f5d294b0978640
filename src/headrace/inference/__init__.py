"""Scoring of rows by a trained model, for any framework.

Worker processes import this too, so it imports pyflink only when a job is planned, and no
deep-learning framework at all.
"""

from __future__ import annotations

from headrace.inference.argument import Argument
from headrace.inference.entry import ScoringEntry
from headrace.inference.input_plan import Call, InputPlan
from headrace.inference.inputs import Inputs, Source, require_inputs
from headrace.inference.model import LoadedModel, Model, TensorSpec, absolute_path, is_uri
from headrace.inference.nulls import null_rows
from headrace.inference.own_memory import in_own_memory
from headrace.inference.predict import OnError, predict
from headrace.inference.python_model import PythonModel
from headrace.inference.scoring_role import Device, scoring_role
from headrace.inference.settings import Postprocess, ScoringSettings

__all__ = [
    "Argument",
    "Call",
    "Device",
    "InputPlan",
    "Inputs",
    "LoadedModel",
    "Model",
    "OnError",
    "Postprocess",
    "PythonModel",
    "ScoringEntry",
    "ScoringSettings",
    "Source",
    "TensorSpec",
    "absolute_path",
    "in_own_memory",
    "is_uri",
    "null_rows",
    "predict",
    "require_inputs",
    "scoring_role",
]
