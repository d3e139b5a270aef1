# SPDX-License-Identifier: Apache-2.0
"""
Decide whether a submit was booked, was refused, or has an unknown outcome.

A wrong "unknown" costs a look into the relay's task list; a wrong "refused" costs a video. So a submit counts
as refused only when relays are known to give its answer before they call their upstream. The table in
``docs/paying-once.md`` lists the cases.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from airflow_provider_luma.client.errors import (
    REFUSING_CODES,
    REFUSING_STATUSES,
    SUCCESS_CODES,
    ErrorDocument,
    api_error,
    first_json,
    read_error,
)
from airflow_provider_luma.client.models import LumaTask, TaskState, decode_tasks, is_task_id
from airflow_provider_luma.exceptions import (
    LumaApiError,
    LumaAuthError,
    LumaConnectionError,
    LumaError,
    LumaForbiddenError,
    LumaQuotaError,
    LumaResponseError,
)
from airflow_provider_luma.text import Cleaner, clean_text

# The upstream may have been working when the relay answered one of these, whatever the body says.
_TOO_LATE: Final = frozenset({408, 502, 504, *range(520, 525)})
# Without a code, the text alone may prove these errors, because no retry can help against them.
_PROVEN_BY_WORDS: Final = (LumaQuotaError, LumaAuthError, LumaForbiddenError)

# For a submit, 1 is a code of success too: some relays answer {"code": 1, "result": "<id>"}.
_SUCCESS_CODES: Final = SUCCESS_CODES | {"1"}
_ID_NAMES: Final = ("task_id", "taskId", "generation_id")
_INNER_NAMES: Final = ("data", "result", "task", "generation", "output", "items", "generations")
_NO_IDS: Final = {"null", "none", "nil", "undefined", "0"}
_MAX_DEPTH: Final = 5


class Booked(msgspec.Struct, frozen=True):
    """The relay accepted the request: it runs and is billed."""

    task: LumaTask


class Refused(msgspec.Struct, frozen=True):
    """The relay certainly didn't take the request; ``error.retryable`` says whether it may do so later."""

    error: LumaError


class Unknown(msgspec.Struct, frozen=True):
    """The request may be running and billed, or not."""

    why: LumaError


SubmitOutcome = Booked | Refused | Unknown


def outcome_of_answer(
    status: int, headers: Mapping[str, str], body: bytes, *, sent: str = "", clean: Cleaner = clean_text
) -> SubmitOutcome:
    """
    Decide the outcome of a submit from a whole answer.

    :param headers: Its headers, keys in any case.
    :param sent: The body of the submit, whose text the answer may repeat.
    :param clean: Makes the relay's texts safe to show, and masks the key in them.
    """
    document = read_error(body)
    if 200 <= status < 300:
        task = _booked_task(body, clean)
        if task is not None:
            return Booked(task)
        if not document.own_shape:
            return Unknown(_names_no_task(status, body, clean))
    error = api_error(status, headers, body, clean=clean, sent=sent)
    return Refused(error) if _is_refusal(error, document) else Unknown(error)


def outcome_of_connection(error: LumaConnectionError) -> SubmitOutcome:
    """Decide the outcome of a submit without a whole answer, from the error of its connection."""
    return Refused(error) if error.unsent else Unknown(error)


def _is_refusal(error: LumaApiError, document: ErrorDocument) -> bool:
    if error.status in _TOO_LATE or 100 <= error.status < 200 or 300 <= error.status < 400:
        return False
    if document.own_shape and document.code.lower() in REFUSING_CODES:
        return True
    if not 200 <= error.status < 300:
        # An edge in front of the relay that answers one of these doesn't pass the request on.
        return error.status in REFUSING_STATUSES
    if not document.own_shape or document.code:
        return False
    return document.number in REFUSING_STATUSES or isinstance(error, _PROVEN_BY_WORDS)


def _names_no_task(status: int, body: bytes, clean: Cleaner) -> LumaResponseError:
    start = clean(body.decode("utf-8-sig", "replace").strip(), 200)
    quote = f"its answer begins with {start!r}" if start else "its answer is empty"
    return LumaResponseError(
        f"The relay returned HTTP {status} without the id of a task: {quote}.",
        status=status,
        relay_message=start,
    )


def _booked_task(body: bytes, clean: Cleaner) -> LumaTask | None:
    """Return the task that a successful answer names, whatever else it contains."""
    try:
        tasks = [task for task in decode_tasks(body, clean=clean) if _is_id(task.id)]
    except LumaApiError:
        tasks = []
    if tasks:
        return tasks[0]
    task_id = _named_id(first_json(body.decode("utf-8-sig", "replace").strip()))
    return LumaTask(id=task_id, state=TaskState.PENDING) if task_id is not None else None


def _named_id(value: Any, depth: int = 0) -> str | None:
    """Find the id of a task in a bare task, in an envelope, or nested in other members."""
    if depth > _MAX_DEPTH:
        return None
    if isinstance(value, list):
        return next((found for item in value if (found := _named_id(item, depth + 1))), None)
    if not isinstance(value, dict):
        return None
    names = [*_ID_NAMES, "id"] if value.get("state") or value.get("status") else _ID_NAMES
    for name in names:
        if _is_id(value.get(name)):
            return str(value[name])
    for name in _INNER_NAMES:
        inner = value.get(name)
        if isinstance(inner, str):
            if _is_id(inner) and (_is_success(value) or _looks_like_an_id(inner)):
                return inner
        elif found := _named_id(inner, depth + 1):
            return found
    return str(value["id"]) if _is_id(value.get("id")) else None


def _is_id(value: object) -> bool:
    return is_task_id(value) and value.lower() not in _NO_IDS


def _is_success(document: Mapping[str, Any]) -> bool:
    code = document.get("code")
    return (
        str("" if code is None else code).lower() in _SUCCESS_CODES and document.get("success") is not False
    )


def _looks_like_an_id(text: str) -> bool:
    """Return whether an unnamed text next to an unknown code is an id, and not a word such as ``failed``."""
    return len(text) >= 8 and re.search(r"\d", text) is not None
