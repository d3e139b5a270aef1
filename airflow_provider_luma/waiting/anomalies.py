# SPDX-License-Identifier: Apache-2.0
"""What can be wrong with one id in an answer that is right as a whole."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from airflow_provider_luma.client.models import LumaTask, TaskState
from airflow_provider_luma.text import clean_text

AnomalyKind = Literal["missing", "without_video", "unreadable"]

LABELS: Final[dict[AnomalyKind, str]] = {
    "missing": "not known to the relay",
    "without_video": "completed without a video",
    "unreadable": "illegible",
}

MAX_REASON: Final = 300
"""Characters of a task's reason that are kept."""

_MAX_STATE: Final = 80


class Anomaly(msgspec.Struct, frozen=True):
    """Count the answers in a row that had the same thing wrong with one id."""

    kind: AnomalyKind
    polls: int
    text: str = ""

    @property
    def reason(self) -> str:
        """Why its id counts as failed after so many answers."""
        match self.kind:
            case "missing":
                return f"the relay doesn't know this id ({self.polls} answers in a row left it out)"
            case "without_video":
                return (
                    f"completed without a video in {self.polls} answers in a row: its content was probably "
                    "filtered after generation"
                )
            case "unreadable":
                return f"illegible in {self.polls} answers in a row: {self.text}"


def find_anomaly(task: LumaTask | None, before: Anomaly | None) -> Anomaly | None:
    """Find what is wrong with a task in an answer (``None``: left out), counting from the one before."""
    text = ""
    if task is None:
        kind: AnomalyKind = "missing"
    elif task.problem is not None:
        kind, text = "unreadable", clean_text(task.problem, MAX_REASON)
    elif task.state is TaskState.COMPLETED and not task.video_url:
        kind = "without_video"
    else:
        return None
    polls = before.polls + 1 if before is not None and before.kind == kind else 1
    return Anomaly(kind, polls, text)


def unknown_state_note(task: LumaTask) -> str:
    """Quote the relay's word for a state that is not understood, and the reason beside it."""
    if task.state is not TaskState.UNKNOWN:
        return ""
    word = f'"{clean_text(task.state_text, _MAX_STATE)}"' if task.state_text else ""
    reason = " ".join(clean_text(task.failure_reason or "", MAX_REASON).split())
    return ": ".join(filter(None, (word, reason)))
