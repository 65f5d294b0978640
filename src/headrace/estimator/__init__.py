"""What the estimators of all frameworks have in common: parameters, history, planning, files.

Worker processes import this too, so it imports pyflink only when a job is planned, and no
deep-learning framework at all.
"""

from __future__ import annotations

from headrace.estimator.base import Estimator
from headrace.estimator.course import Course, Verdict, require_finite
from headrace.estimator.early_stopping import EarlyStopping
from headrace.estimator.examples import Example, ExamplePlan
from headrace.estimator.files import FitRecord
from headrace.estimator.fit_state import FitState
from headrace.estimator.fitted import FittedModel
from headrace.estimator.history import History
from headrace.estimator.plan import FitJob, FitPlan
from headrace.estimator.sums import Sums

__all__ = [
    "Course",
    "EarlyStopping",
    "Estimator",
    "Example",
    "ExamplePlan",
    "FitJob",
    "FitPlan",
    "FitRecord",
    "FitState",
    "FittedModel",
    "History",
    "Sums",
    "Verdict",
    "require_finite",
]
