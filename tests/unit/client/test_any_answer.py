# SPDX-License-Identifier: Apache-2.0
"""Whatever a relay answers: decoding ends in tasks or a LumaError, and no well-formed task is lost."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from airflow_provider_luma.client import LumaTask, TaskState, decode_tasks
from airflow_provider_luma.client.models import is_task_id
from airflow_provider_luma.exceptions import LumaError

NAMES = st.sampled_from(
    ["id", "task_id", "state", "status", "data", "code", "error", "success", "message", "video", "url"]
)
WORDS = st.sampled_from(["completed", "FAILURE", "success", "t1", "", "null", "https://cdn.test/v.mp4"])
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
    | WORDS
)
JSON = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(NAMES | st.text(max_size=4), inner, max_size=5)
    ),
    max_leaves=12,
)
ODD_BYTES = st.binary(max_size=40) | st.sampled_from(
    [
        b"",
        b"[",
        b"]",
        b"{",
        b"}",
        b'"',
        b"\\",
        b",",
        b":",
        b"\xff",
        b"\x00",
        b"0x1",
        b"NaN",
        b"1e999",
        b"<html>",
    ]
)
SPOILERS = st.sampled_from([b"", b"\xff", b"\x00", b"\xed\xa0\x80", b"\\x", b"\\ud800", b"\n"])
MEMBERS = [
    "state",
    "created_at",
    "request",
    "artifact",
    "video",
    "video_raw",
    "thumbnail",
    "last_frame",
    "failure_reason",
    "fail_reason",
    "task_id",
    "status",
    "data",
    "new",
]


@pytest.fixture(autouse=True, scope="module")
def quiet_log() -> Any:
    logger = logging.getLogger("airflow_provider_luma")
    level = logger.level
    # Not by assignment: the loggers below remember what is enabled until setLevel clears that.
    logger.setLevel(logging.ERROR)
    yield
    logger.setLevel(level)


def decode(body: bytes) -> list[LumaTask] | LumaError:
    """Decode, and check what holds for every answer."""
    try:
        tasks = decode_tasks(body)
    except LumaError as error:
        return error
    for task in tasks:
        assert is_task_id(task.id)
        assert isinstance(task.state, TaskState)
        assert task.problem is None or task.state is TaskState.UNKNOWN
        assert task.video_url is None or task.video_url.startswith(("https://", "http://"))
    return tasks


def seed_shaped(task_id: str) -> dict[str, Any]:
    link = {"url": f"https://cdn.test/{task_id}", "width": 1360, "height": 752}
    files = {"video": link | {"download_url": ""}, "video_raw": link | {"duration": 5.04}}
    return {
        "id": task_id,
        "state": "completed",
        "created_at": "2024-12-22T13:38:40.139Z",
        "request": {"aspect_ratio": "16:9", "prompt": 'cat dance, [loop] {"a": 1} \\'},
        "artifact": {"created_at": "0001-01-01T00:00:00Z", **files},
        **files,
    }


def in_envelope(task: Any, row_id: int) -> dict[str, Any]:
    task_id = task["id"] if isinstance(task, dict) and "id" in task else None
    return {"id": row_id, "task_id": task_id, "status": "SUCCESS", "fail_reason": "", "data": task}


@st.composite
def mutated_tasks(draw: st.DrawFn) -> bytes:
    """A task of the seed's shape in which some members hold anything."""
    task = seed_shaped(draw(st.sampled_from(["bad", "worse", "g1"])))
    task |= draw(st.dictionaries(st.sampled_from(MEMBERS), JSON, max_size=3))
    for name in draw(st.sets(st.sampled_from(sorted(task)), max_size=2)):
        del task[name]
    return json.dumps(task).encode()


def spoil(task: bytes, with_what: bytes) -> bytes:
    """Put odd bytes inside the prompt, where they break nothing but the record they are in."""
    return task.replace(b'"cat ', b'"cat ' + with_what)


ODD_VALUES = JSON.map(lambda value: json.dumps(value).encode()) | st.sampled_from(
    [
        b"NaN",
        b"-Infinity",
        b"1e999",
        b"9" * 400,
        b"9" * 5_000,
        b'"a cat \\ud83d"',
        b'"\\udc00\\ud83d"',
        b'"\xff\xfe"',
        b'"\xed\xa0\x80"',
        b'"a\x00b"',
        b"[" * 5_000 + b"]" * 5_000,
        b'{"a":' * 5_000 + b"1" + b"}" * 5_000,
        b'"{\\"id\\": \\"other\\", \\"state\\": \\"failed\\"}"',
        b'{"id": "other", "state": "failed", "url": "null"}',
    ]
)
# Where a value may be replaced: every member of a task and of its row but ids, states and links.
DECORATION = [
    ("created_at",),
    ("request",),
    ("request", "prompt"),
    ("request", "aspect_ratio"),
    ("artifact",),
    ("artifact", "created_at"),
    ("artifact", "video"),
    ("video", "width"),
    ("video", "duration"),
    ("video", "thumbnail"),
    ("video", "media_type"),
    ("video", "palette"),
    ("video_raw",),
    ("video_raw", "height"),
    ("thumbnail",),
    ("last_frame",),
    ("failure_reason",),
    ("fail_reason",),
    ("error",),
    ("prompt",),
    ("new",),
]
ROW_DECORATION = [
    "id",
    "platform",
    "action",
    "fail_reason",
    "failure_reason",
    "progress",
    "submit_time",
    "video",
    "new",
]
MARK = "@@here@@"


class TestACompletedTaskStaysCompletedWithItsLink:
    @staticmethod
    def check(body: Any, value: bytes) -> None:
        raw = json.dumps(body).encode().replace(b'"%b"' % MARK.encode(), value)
        tasks = decode(raw)
        assert not isinstance(tasks, LumaError)
        [task] = tasks
        assert (task.id, task.state, task.problem) == ("t1", TaskState.COMPLETED, None)
        assert task.video_url == "https://cdn.test/t1"

    @given(st.sampled_from(DECORATION), ODD_VALUES, st.sampled_from(["bare", "array", "row", "envelope"]))
    def test_whatever_stands_in_another_field_of_it(
        self, path: tuple[str, ...], value: bytes, shape: str
    ) -> None:
        task = seed_shaped("t1")
        # The preferred link, so that another legible one doesn't count.
        task["video"]["download_url"] = task["video"]["url"]
        inner = task if len(path) == 1 else task[path[0]]
        inner[path[-1]] = MARK
        row = in_envelope(task, 1)
        self.check(
            {"bare": task, "array": [task], "row": row, "envelope": {"code": 0, "data": [row]}}[shape], value
        )

    @given(st.sampled_from(ROW_DECORATION), ODD_VALUES, st.booleans())
    def test_whatever_stands_in_another_field_of_its_row(
        self, name: str, value: bytes, enveloped: bool
    ) -> None:
        row = in_envelope(seed_shaped("t1"), 1) | {name: MARK}
        self.check({"code": "success", "data": [row]} if enveloped else row, value)

    @given(st.sampled_from(["code", "message", "success", "error", "new"]), ODD_VALUES)
    def test_whatever_stands_in_another_field_of_the_envelope(self, name: str, value: bytes) -> None:
        self.check({"code": "success", "data": [in_envelope(seed_shaped("t1"), 1)]} | {name: MARK}, value)


class TestNothingButALumaError:
    @given(st.binary())
    def test_comes_of_arbitrary_bytes(self, body: bytes) -> None:
        decode(body)

    @given(st.lists(ODD_BYTES | JSON.map(lambda value: json.dumps(value).encode())).map(b"".join))
    def test_comes_of_pieces_of_json_and_garbage(self, body: bytes) -> None:
        decode(body)

    @given(JSON)
    def test_comes_of_arbitrary_json(self, value: Any) -> None:
        decode(json.dumps(value).encode())
        decode(json.dumps(value, ensure_ascii=False, indent=1).encode("utf-8", "surrogatepass"))

    @given(JSON, st.sampled_from(["data", "error", "code", "success", "task_id", "id"]))
    def test_comes_of_arbitrary_members_of_an_envelope(self, value: Any, name: str) -> None:
        envelope = {"code": "success", "message": "", "data": [in_envelope(seed_shaped("g1"), 1)]}
        decode(json.dumps(envelope | {name: value}).encode())

    @given(mutated_tasks(), st.integers(0, 2000))
    def test_comes_of_a_task_that_breaks_off(self, task: bytes, length: int) -> None:
        decode(task[:length])
        decode(b"[" + task[:length])
        decode(b'{"data": [' + task[:length])


class TestWellFormedTasks:
    @given(
        broken=st.lists(
            st.builds(spoil, mutated_tasks(), SPOILERS) | JSON.map(lambda value: json.dumps(value).encode()),
            max_size=3,
        ),
        places=st.lists(st.integers(0, 3), min_size=3, max_size=3),
        enveloped=st.booleans(),
        glued=st.sampled_from([b"", b"\n", b"[]", b'{"error": {"message": "late"}}', b"\xff"]),
    )
    def test_are_not_lost_beside_broken_ones(
        self, broken: list[bytes], places: list[int], enveloped: bool, glued: bytes
    ) -> None:
        good = ["good-1", "good-2", "good-3"]
        shaped = [
            in_envelope(seed_shaped(name), n) if enveloped else seed_shaped(name)
            for n, name in enumerate(good)
        ]
        records = [json.dumps(task).encode() for task in shaped]
        for place, record in zip(places, broken, strict=False):
            records.insert(place, record)
        body = b"[" + b", ".join(records) + b"]"
        body = b'{"code": "success", "message": "", "data": ' + body + b"}" if enveloped else body

        tasks = decode(body + glued)

        assert not isinstance(tasks, LumaError)
        found = [task for task in tasks if task.id in good]
        assert [task.id for task in found] == good
        for task in found:
            assert (task.state, task.problem) == (TaskState.COMPLETED, None)
            assert task.video_url == f"https://cdn.test/{task.id}"

    @given(mutated_tasks())
    def test_decode_the_same_in_every_shape(self, task: bytes) -> None:
        alone = decode(b"[" + task + b"]")
        assume(not isinstance(alone, LumaError))
        assume(b'"task_id"' not in task)
        assume(b'"data"' not in task)
        assert decode(b'{"code": "success", "data": [' + task + b"]}") == alone
        assert decode(b'{"code": "success", "data": ' + task + b"}") == alone

    @given(st.lists(st.sampled_from(["a", "b", "c"]), max_size=6), st.booleans())
    def test_come_in_the_order_of_the_answer_and_as_often(self, ids: list[str], enveloped: bool) -> None:
        shaped = [
            in_envelope(seed_shaped(name), n) if enveloped else seed_shaped(name)
            for n, name in enumerate(ids)
        ]
        tasks = decode(json.dumps({"data": shaped} if enveloped else shaped).encode())
        assert not isinstance(tasks, LumaError)
        assert [task.id for task in tasks] == ids
