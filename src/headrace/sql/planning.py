"""Answers the planner."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import msgspec

from headrace.config import RoleConfig, TimeoutConfig
from headrace.errors import HeadraceError
from headrace.operator.plan import (
    am_payload,
    am_spec,
    checkpoint_dir_of_job,
    cluster_document,
    role_document,
    role_payload,
)
from headrace.sql.model import model_role
from headrace.sql.names import require_absolute
from headrace.sql.questions import ModelQuestion, Question, TrainingQuestion
from headrace.sql.training import training_job

__all__ = ["answer"]


def answer(text: bytes) -> bytes:
    """Return the answer to a question: documents and a payload, or the text of a refusal.

    Args:
        text: JSON of one of the types of `headrace.sql.questions`.

    Raises:
        msgspec.DecodeError: It is no question.
    """
    question = msgspec.json.decode(text, type=Question)
    try:
        require_absolute("python.files", question.options.python_files)
        if isinstance(question, ModelQuestion):
            planned = _plan_model(question)
        else:
            planned = _plan_training(question)
    except HeadraceError as exc:
        planned = {"error": str(exc)}
    return json.dumps(planned).encode()


def _plan_model(question: ModelQuestion) -> dict[str, Any]:
    timeouts = TimeoutConfig()
    cluster = cluster_document(
        question.name,
        uid_prefix=question.name,  # no operator of ours has it
        timeouts=timeouts,
        python_path=list(question.options.python_files),
    )
    role = _role(question.name, model_role(question), timeouts, None)
    return {"cluster": json.loads(cluster), "role": role}


def _plan_training(question: TrainingQuestion) -> dict[str, Any]:
    job = training_job(question)
    cluster = cluster_document(
        job.name,
        uid_prefix=f"headrace-{job.name}",
        timeouts=job.master.timeouts,
        python_path=list(question.options.python_files),
        am_spec=am_spec(job.name, job.master),
        max_master_restarts=job.master.max_master_restarts,
    )
    checkpoint_dir = checkpoint_dir_of_job(job.name, job.checkpoint_dir, is_embedded=False)
    return {
        "cluster": json.loads(cluster),
        "payload": _text(am_payload(job.master)),
        "roles": [
            {
                **_role(name, config, job.master.timeouts, checkpoint_dir),
                "is_fed": name == job.fed_role,
            }
            for name, config in job.roles.items()
        ],
        "epochs": job.epochs,
        "has_exports": job.has_exports,
    }


def _role(
    name: str, config: RoleConfig, timeouts: TimeoutConfig, checkpoint_dir: Path | None
) -> dict[str, Any]:
    document = role_document(name, config, timeouts, checkpoint_dir)
    return {"document": json.loads(document), "payload": _text(role_payload(name, config))}


def _text(payload: bytes) -> str:
    return base64.b64encode(payload).decode()
