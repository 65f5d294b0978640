"""Answers the planner."""

from __future__ import annotations

import base64
import json
from typing import Any

import msgspec

from headrace.config import TimeoutConfig
from headrace.errors import HeadraceError
from headrace.operator.plan import cluster_document, role_document, role_payload
from headrace.sql.model import model_role
from headrace.sql.names import require_absolute
from headrace.sql.questions import ModelQuestion, Question

__all__ = ["answer"]

_UID_PREFIX = "headrace/sql"


def answer(text: bytes) -> bytes:
    """Return the answer to a question: documents and a payload, or the text of a refusal.

    Args:
        text: JSON of one of the types of `headrace.sql.questions`.

    Raises:
        msgspec.DecodeError: It is no question.
    """
    question = msgspec.json.decode(text, type=Question)
    try:
        planned = _plan_model(question)
    except HeadraceError as exc:
        planned = {"error": str(exc)}
    return json.dumps(planned).encode()


def _plan_model(question: ModelQuestion) -> dict[str, Any]:
    files = question.options.python_files
    require_absolute("python.files", files)
    role = model_role(question)
    timeouts = TimeoutConfig()
    cluster = cluster_document(
        question.name, uid_prefix=_UID_PREFIX, timeouts=timeouts, python_path=list(files)
    )
    return {
        "cluster": json.loads(cluster),
        "role": json.loads(role_document(question.name, role, timeouts, None)),
        "payload": base64.b64encode(role_payload(question.name, role)).decode(),
    }
