# SPDX-License-Identifier: Apache-2.0
"""
Changes that relays have been seen to make to their own answers, as values.

A rewrite takes the relay's true answer, in either dialect, and returns the one that is sent. It returns an
answer with nothing to rewrite, such as an error or an empty batch, unchanged.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Iterator
from typing import Any, Literal, get_args

import msgspec

# Fields of a task, and the odd values that relays have put there. No id, state or URL is among them.
_ODD_TASK: tuple[tuple[tuple[str, ...], object], ...] = (
    (("artifact",), []),
    (("artifact",), ""),
    (("created_at",), {}),
    (("created_at",), math.nan),
    (("failure_reason",), {"message": "", "code": 0}),
    (("last_frame",), False),
    (("last_frame",), ""),
    (("liked",), math.nan),
    (("request",), ""),
    (("request",), []),
    (("request", "prompt"), "a cat \ud83d"),
    (("request", "prompt"), {"text": "a cat"}),
    (("thumbnail",), []),
    (("thumbnail", "palette"), 7),
    (("video", "height"), math.nan),
    (("video", "width"), "640"),
    (("video", "width"), 10**400),
    (("video_raw", "duration"), "5s"),
    (("video_raw", "media_type"), None),
)
_ODD_ROW: tuple[tuple[tuple[str, ...], object], ...] = (
    (("fail_reason",), {"message": "", "code": 0}),
    (("finish_time",), "never"),
    (("platform",), []),
    (("progress",), math.nan),
    (("submit_time",), {}),
)

RefusalStatus = Literal[400, 401, 403, 404, 410]
IdBesideErrorForm = Literal[
    "error_code_zero",
    "error_false",
    "error_zero",
    "error_empty_list",
    "code_one_result",
    "code_ok",
    "code_succeed",
    "code_201",
    "code_202",
    "success_false",
]
_NO_ERROR: dict[str, object] = {
    "error_code_zero": {"code": 0, "message": ""},
    "error_false": False,
    "error_zero": 0,
    "error_empty_list": [],
}
_CODES: dict[str, object] = {"code_ok": "ok", "code_succeed": "succeed", "code_201": 201, "code_202": 202}


class _Rewrite(msgspec.Struct, frozen=True, kw_only=True, tag=True, omit_defaults=True):
    """Change the true answer."""

    def apply(self, body: bytes) -> bytes:
        """Return the answer that is sent instead of ``body``."""
        # Not msgspec: it neither reads nor writes NaN and lone surrogates, which these answers are about.
        return json.dumps(self.change(json.loads(body)), separators=(",", ":")).encode()

    def change(self, answer: Any) -> Any:
        """Return the decoded answer that is sent instead of ``answer``."""
        raise NotImplementedError


class ByteOrderMark(_Rewrite, frozen=True, kw_only=True):
    """Put a UTF-8 byte order mark before the JSON."""

    def apply(self, body: bytes) -> bytes:
        return b"\xef\xbb\xbf" + body


class StaleInnerState(_Rewrite, frozen=True, kw_only=True):
    """Report rows as timed out whose tasks are still processing."""

    reason: str

    def change(self, answer: Any) -> Any:
        def sweep(row: dict[str, Any]) -> None:
            row |= {"status": "FAILURE", "fail_reason": self.reason, "progress": "100%"}
            if isinstance(row.get("data"), dict):
                row["data"] |= {"state": "processing", "video": None, "video_raw": None}

        return _each_row(answer, sweep)


class LinkInRow(_Rewrite, frozen=True, kw_only=True):
    """Move the only URL of a video into a field of its row."""

    field: Literal["fail_reason", "result_url"]

    def change(self, answer: Any) -> Any:
        def move(row: dict[str, Any]) -> None:
            task = row.get("data")
            if isinstance(task, dict) and isinstance(task.get("video"), dict):
                url = task["video"]["url"]
                task |= {"video": None, "video_raw": None, "artifact": None}
                row |= {"status": "SUCCESS", "fail_reason": "", self.field: url}

        return _each_row(answer, move)


class OddFields(_Rewrite, frozen=True, kw_only=True):
    """Put a meaningless value into one decorative field of each task; the seed chooses."""

    seed: int

    def change(self, answer: Any) -> Any:
        chance = random.Random(self.seed)  # noqa: S311 - no secret
        for row, task in _records(answer):
            if task is None:
                # Before its start a task is null in its row.
                row["data"] = chance.choice(["", []])
            elif row is not task and chance.random() < 0.25:
                _put(row, *chance.choice(_ODD_ROW))
            else:
                _put(task, *chance.choice(_ODD_TASK))
        return answer


class IdBesideError(_Rewrite, frozen=True, kw_only=True):
    """Put something that looks like an error beside one task, as after a submit that succeeded."""

    form: IdBesideErrorForm

    def change(self, answer: Any) -> Any:
        for row, task in _records(answer):
            own = task or {"id": row["task_id"], "state": "pending"}
            if self.form in _NO_ERROR:
                return {**own, "error": _NO_ERROR[self.form]}
            if self.form == "code_one_result":
                return {"code": 1, "description": "submitted", "result": own["id"]}
            if self.form == "success_false":
                return {"success": False, "message": "", "id": own["id"], "data": own}
            return {"code": _CODES[self.form], "message": "", "data": own}
        return answer


class OtherLetterCase(_Rewrite, frozen=True, kw_only=True):
    """Return ids in another letter case than they were requested."""

    def change(self, answer: Any) -> Any:
        for row, task in _records(answer):
            for record, name in ((row, "task_id"), (task or {}, "id")):
                if isinstance(record.get(name), str):
                    record[name] = record[name].swapcase()
        return answer


class DeadPreferredLink(_Rewrite, frozen=True, kw_only=True):
    """Add a ``download_url`` that the media host always refuses, beside a ``url`` that works."""

    status: RefusalStatus

    def change(self, answer: Any) -> Any:
        for _, task in _records(answer):
            if task and isinstance(task.get("video"), dict):
                video = task["video"]
                url = video["url"]
                video["download_url"] = f"{url}{'&' if '?' in url else '?'}refused={self.status}"
        return answer


Rewrite = (
    ByteOrderMark
    | StaleInnerState
    | LinkInRow
    | OddFields
    | IdBesideError
    | OtherLetterCase
    | DeadPreferredLink
)
ID_BESIDE_ERROR_FORMS: tuple[IdBesideErrorForm, ...] = get_args(IdBesideErrorForm)


def _records(answer: Any) -> Iterator[tuple[dict[str, Any], dict[str, Any] | None]]:
    """
    Yield each row of an answer with its task, or None for a row that holds no task yet.

    A bare task is its own row.
    """
    data = answer.get("data") if isinstance(answer, dict) and "code" in answer else answer
    for record in data if isinstance(data, list) else [data]:
        if not isinstance(record, dict):
            continue
        if "task_id" in record:
            task = record.get("data")
            yield record, task if isinstance(task, dict) else None
        elif "id" in record and "state" in record:
            yield record, record


def _each_row(answer: Any, change: Callable[[dict[str, Any]], None]) -> Any:
    """Change the rows of an answer; bare tasks are put into rows first."""
    records = list(_records(answer))
    rows = [row if row is not task else _row_of(number, row) for number, (row, task) in enumerate(records)]
    if not rows:
        return answer
    for row in rows:
        change(row)
    many = isinstance(answer.get("data") if isinstance(answer, dict) else answer, list)
    return {"code": "success", "message": "", "data": rows if many else rows[0]}


def _row_of(number: int, task: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": 13_917 + number,
        "task_id": task["id"],
        "platform": "luma",
        "action": "GENERATE",
        "status": str(task["state"]).upper(),
        "fail_reason": "",
        "progress": "",
        "data": task,
    }


def _put(record: dict[str, Any], path: tuple[str, ...], value: object) -> None:
    """Set a field; where the object around it is null, as before completion, that becomes an empty text."""
    *outer, name = path
    for step in outer:
        if not isinstance(record.get(step), dict):
            record[step] = ""
            return
        record = record[step]
    record[name] = value
