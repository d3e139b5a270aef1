# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import logging
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from airflow_provider_luma.client import (
    ExtensionRequest,
    GenerationRequest,
    LumaTask,
    TaskState,
    decode_tasks,
    decoder,
    records,
)
from airflow_provider_luma.client.artifacts import artifact_urls
from airflow_provider_luma.client.models import Media, is_task_id
from airflow_provider_luma.exceptions import (
    LumaApiError,
    LumaBusyError,
    LumaConfigError,
    LumaEndpointError,
    LumaQuotaError,
    LumaResponseError,
    LumaServerError,
    LumaTaskNotFoundError,
)
from airflow_provider_luma.text import MAX_PROMPT, MAX_TEXT, Cleaner

CLEAN, RAW, MARKED = "https://cdn.test/clean.mp4", "https://cdn.test/raw.mp4", "https://cdn.test/marked.mp4"
OTHERS = ("before", "after")


def decode(value: Any) -> list[LumaTask]:
    return decode_tasks(json.dumps(value).encode())


def decode_one(**fields: Any) -> LumaTask:
    [task] = decode([{"id": "t1", "state": "completed", **fields}])
    return task


def envelope(*rows: Any, **fields: Any) -> dict[str, Any]:
    return {"code": "success", "message": "", "data": list(rows), **fields}


def row(task: Any, **fields: Any) -> dict[str, Any]:
    return {
        "id": 13917,
        "task_id": "t1",
        "platform": "luma",
        "action": "generate",
        "status": "IN_PROGRESS",
        "fail_reason": "",
        "progress": "40%",
        "submit_time": 1734874720,
        "start_time": 1734874721,
        "finish_time": 0,
        "data": task,
        **fields,
    }


@pytest.fixture(autouse=True)
def no_state_met_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "_warned_states", set())


class TestShapes:
    def test_the_seed_decodes_into_a_completed_task_with_all_its_urls(
        self, seed_task: dict[str, Any]
    ) -> None:
        [task] = decode([seed_task])
        assert task.id == seed_task["id"]
        assert task.state is TaskState.COMPLETED
        assert task.prompt == "cat dance"
        assert task.aspect_ratio == "16:9"
        assert task.created_at == datetime(2024, 12, 22, 13, 38, 40, 139000, UTC)
        assert task.failure_reason is None
        assert task.problem is None
        assert task.video_url == seed_task["video"]["download_url"]
        for name in ("video", "video_raw", "thumbnail", "last_frame"):
            assert getattr(task, name).url == seed_task[name]["url"]
            assert getattr(task, name).width == 1360
        assert task.video_raw is not None
        assert task.video_raw.duration == 5.04

    def test_an_empty_array_is_no_task(self) -> None:
        assert decode([]) == []

    def test_order_is_kept(self) -> None:
        assert [task.id for task in decode([{"id": f"t{n}", "state": "queued"} for n in (3, 1, 2)])] == [
            "t3",
            "t1",
            "t2",
        ]

    def test_a_bare_task_is_one_task(self, seed_task: dict[str, Any]) -> None:
        assert decode(seed_task) == decode([seed_task])

    def test_white_space_around_the_answer_means_nothing(self) -> None:
        assert [t.id for t in decode_tasks(b'\r\n\t [ { "id" : "t1" } ] \n')] == ["t1"]

    def test_in_the_envelope_the_task_id_counts_and_not_the_row_number(
        self, seed_task: dict[str, Any]
    ) -> None:
        [task] = decode(envelope(row(seed_task, task_id="the-id")))
        assert task.id == "the-id"
        assert task.video_url == seed_task["video"]["download_url"]

    def test_a_row_without_a_task_yet_has_the_state_of_the_row(self) -> None:
        assert decode(envelope(row(None))) == [
            LumaTask("t1", TaskState.PROCESSING, created_at=datetime(2024, 12, 22, 13, 38, 40, tzinfo=UTC))
        ]

    def test_the_inner_state_comes_before_the_outer_status(self) -> None:
        [task] = decode(envelope(row({"id": "t1", "state": "completed"})))
        assert task.state is TaskState.COMPLETED

    @pytest.mark.parametrize("inner", [{}, {"id": "t1"}, {"state": None}, {"state": ""}])
    def test_the_outer_status_holds_when_the_inner_state_is_absent(self, inner: dict[str, Any]) -> None:
        [task] = decode(envelope(row(inner, status="SUCCESS")))
        assert task.state is TaskState.COMPLETED

    @pytest.mark.parametrize("code", ["success", "SUCCESS", "", None, 0, 200, "200"])
    def test_every_code_of_success_is_one(self, code: Any) -> None:
        assert [task.id for task in decode(envelope(row(None), code=code))] == ["t1"]

    def test_an_envelope_needs_no_code(self) -> None:
        assert [task.id for task in decode({"data": [row(None)]})] == ["t1"]

    @pytest.mark.parametrize("data", [None, []])
    def test_an_envelope_around_nothing_is_no_task(self, data: Any) -> None:
        assert decode({"code": "success", "message": "", "data": data}) == []

    def test_a_single_query_may_answer_one_row_in_the_envelope(self, seed_task: dict[str, Any]) -> None:
        assert decode({"code": "success", "data": row(seed_task)}) == decode(envelope(row(seed_task)))

    def test_a_single_query_may_answer_one_bare_task_in_the_envelope(self, seed_task: dict[str, Any]) -> None:
        assert decode({"code": "success", "data": seed_task}) == decode([seed_task])

    def test_a_row_may_come_without_its_envelope(self, seed_task: dict[str, Any]) -> None:
        assert decode(row(seed_task)) == decode(envelope(row(seed_task)))

    def test_a_submit_may_answer_nothing_but_the_id_in_the_envelope(self) -> None:
        assert decode({"code": "success", "data": "luma_gen_abc123"}) == [
            LumaTask("luma_gen_abc123", TaskState.PENDING)
        ]

    @pytest.mark.parametrize(
        "task_id", ["4665a07c-7641-4809-a133-10786201bb56", "task_" + "a1" * 16, "luma_gen_abc123", "x" * 128]
    )
    def test_every_form_of_id_is_taken(self, task_id: str) -> None:
        assert is_task_id(task_id)
        assert [task.id for task in decode([{"id": task_id, "state": "pending"}])] == [task_id]

    @pytest.mark.parametrize("value", ["", "x" * 129, "a b", "../x", "a\n", "é", "１", 5, None, b"a", ["a"]])
    def test_nothing_else_is_an_id(self, value: object) -> None:
        assert not is_task_id(value)

    def test_unknown_fields_are_ignored_everywhere(self, seed_task: dict[str, Any]) -> None:
        extra = {"new": {"deep": [1, None, "x"]}}
        noisy = {k: v | extra if isinstance(v, dict) else v for k, v in seed_task.items()} | extra
        assert decode([noisy]) == decode([seed_task])
        assert decode(envelope(row(noisy, **extra), **extra)) == decode(envelope(row(seed_task)))


STATES = {
    TaskState.PENDING: ["pending", "queued", "NOT_START", "SUBMITTED", "QUEUED"],
    TaskState.PROCESSING: ["processing", "dreaming", "IN_PROGRESS"],
    TaskState.COMPLETED: ["completed", "succeeded", "SUCCESS"],
    TaskState.FAILED: [
        "failed",
        "FAILURE",
        "fail",
        "cancelled",
        "canceled",
        "expired",
        "error",
        "timeout",
        "rejected",
    ],
}


class TestStates:
    @pytest.mark.parametrize(
        ("seen", "state"), [(seen, state) for state, words in STATES.items() for seen in words]
    )
    def test_every_word_that_relays_use_has_its_state_in_any_case(self, seen: str, state: TaskState) -> None:
        for word in (seen, seen.upper(), seen.lower(), seen.title()):
            assert decode_one(state=word).state is state
            assert decode(envelope(row(None, status=word)))[0].state is state

    @pytest.mark.parametrize("word", ["paused", "完成", "complete", "", " completed"])
    def test_any_other_word_is_not_understood(self, word: str) -> None:
        assert decode_one(state=word).state is TaskState.UNKNOWN

    @pytest.mark.parametrize("fields", [{"id": "t1"}, {"id": "t1", "state": None}])
    def test_a_task_without_a_state_is_not_understood(self, fields: dict[str, Any]) -> None:
        assert decode([fields])[0].state is TaskState.UNKNOWN

    def test_a_bare_task_may_call_its_state_status(self) -> None:
        assert decode([{"id": "t1", "status": "SUCCESS"}])[0].state is TaskState.COMPLETED

    def test_each_new_word_is_warned_of_once(self, caplog: pytest.LogCaptureFixture) -> None:
        for word in ("paused", "paused", "asleep", "completed"):
            decode_one(state=word)
        assert [record.args for record in caplog.records] == [("paused",), ("asleep",)]

    def test_a_relay_that_invents_words_without_end_does_not_fill_the_memory_or_the_log(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        decode([{"id": f"t{n}", "state": f"word {n}"} for n in range(1000)])
        assert len(caplog.records) == 100
        assert len(records._warned_states) == 100

    def test_only_completed_and_failed_are_terminal(self) -> None:
        assert [state for state in TaskState if state.terminal] == [TaskState.COMPLETED, TaskState.FAILED]


class TestMedia:
    @pytest.mark.parametrize("absent", [{}, dict.fromkeys(["video", "video_raw", "thumbnail", "last_frame"])])
    @pytest.mark.parametrize("artifact", [{}, {"artifact": None}, {"artifact": {}}])
    def test_before_completion_the_files_are_null_or_absent(
        self, absent: dict[str, Any], artifact: dict[str, Any]
    ) -> None:
        task = decode_one(state="processing", **absent, **artifact)
        assert (task.video, task.video_raw, task.thumbnail, task.last_frame, task.video_url) == (None,) * 5

    @pytest.mark.parametrize("palette", [None, {"grid": "em9c"}])
    def test_the_palette_does_not_matter(self, palette: Any) -> None:
        task = decode_one(thumbnail={"url": "https://cdn.test/t.jpg", "width": 4, "palette": palette})
        assert task.thumbnail == Media(url="https://cdn.test/t.jpg", width=4)

    def test_files_may_be_told_in_the_artifact_alone(self, seed_task: dict[str, Any]) -> None:
        names = ("video", "video_raw", "thumbnail", "last_frame")
        without = {name: value for name, value in seed_task.items() if name not in names}
        assert decode([without]) == decode([seed_task])

    def test_the_thumbnail_may_be_a_text_inside_the_video(self) -> None:
        task = decode_one(video={"url": MARKED, "thumbnail": "https://cdn.test/t.jpg"})
        assert task.thumbnail == Media(url="https://cdn.test/t.jpg")

    def test_the_thumbnail_may_be_a_text_beside_the_video(self) -> None:
        assert decode_one(thumbnail="https://cdn.test/t.jpg").thumbnail == Media(url="https://cdn.test/t.jpg")

    @pytest.mark.parametrize(
        ("files", "expected"),
        [
            ({"video": {"download_url": CLEAN, "url": MARKED}, "video_raw": {"url": RAW}}, CLEAN),
            ({"video": {"download_url": "", "url": MARKED}, "video_raw": {"url": RAW}}, RAW),
            ({"video": {"download_url": None, "url": MARKED}, "video_raw": {"url": ""}}, MARKED),
            ({"video": {"url": MARKED}}, MARKED),
            ({"video_raw": {"url": RAW}}, RAW),
            ({"video": {"url": "", "download_url": ""}, "video_raw": None}, None),
            ({"video": {"width": 1360}}, None),
            ({}, None),
        ],
    )
    def test_the_clean_video_is_preferred_then_the_raw_one_then_the_plain_one(
        self, files: dict[str, Any], expected: str | None
    ) -> None:
        assert decode_one(**files).video_url == expected

    def test_a_completed_task_may_have_no_video(self) -> None:
        task = decode_one()
        assert (task.state, task.video_url, task.problem) == (TaskState.COMPLETED, None, None)

    @pytest.mark.parametrize(
        "link", ["javascript:alert(1)", "file:///etc/passwd", "data:text/html,x", "//cdn.test/x", "x.mp4"]
    )
    @pytest.mark.parametrize("member", ["url", "download_url"])
    @pytest.mark.parametrize("name", ["video", "video_raw", "thumbnail", "last_frame"])
    def test_a_link_that_is_not_http_is_dropped_and_told(
        self, name: str, member: str, link: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        task = decode_one(**{name: {member: link}})
        assert getattr(task, name) is None
        assert "not http(s)" in caplog.text

    def test_a_thumbnail_inside_the_video_that_is_not_http_is_dropped_from_both_places(self) -> None:
        task = decode_one(video={"url": MARKED, "thumbnail": "javascript:alert(1)"})
        assert task.video_url == MARKED
        assert "javascript" not in repr(task)

    def test_best_url_prefers_the_clean_file(self) -> None:
        assert Media(url=MARKED, download_url=CLEAN).best_url == CLEAN
        assert Media(url=MARKED, download_url="").best_url == MARKED
        assert Media(url="").best_url is None


class TestMoments:
    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            ("2024-12-22T13:38:40.139Z", datetime(2024, 12, 22, 13, 38, 40, 139000, UTC)),
            ("2024-12-22T21:38:40+08:00", datetime(2024, 12, 22, 13, 38, 40, tzinfo=UTC)),
            ("2024-12-22T13:38:40", datetime(2024, 12, 22, 13, 38, 40, tzinfo=UTC)),
            (1734874720, datetime(2024, 12, 22, 13, 38, 40, tzinfo=UTC)),
            (1734874720.5, datetime(2024, 12, 22, 13, 38, 40, 500000, UTC)),
            (1734874720139, datetime(2024, 12, 22, 13, 38, 40, 139000, UTC)),
            ("0001-01-01T00:00:00Z", None),
            (0, None),
            ("", None),
            (None, None),
            ("yesterday", None),
            (1e300, None),
            (-1e300, None),
            ("9999-12-31T23:59:59-23:59", None),
        ],
    )
    def test_created_at_is_a_text_or_an_epoch_in_seconds_or_milliseconds(
        self, value: Any, expected: datetime | None
    ) -> None:
        created_at = decode_one(created_at=value).created_at
        assert created_at == expected
        assert created_at is None or created_at.tzinfo is UTC

    def test_the_creation_time_of_the_artifact_means_nothing(self) -> None:
        assert decode_one(artifact={"created_at": "2024-12-22T13:38:40Z"}).created_at is None

    def test_the_inner_creation_time_comes_before_the_time_of_the_row(self) -> None:
        [task] = decode(envelope(row({"created_at": "2020-01-01T00:00:00Z"})))
        assert task.created_at == datetime(2020, 1, 1, tzinfo=UTC)


class TestFailureReasons:
    @pytest.mark.parametrize("name", ["failure_reason", "fail_reason"])
    def test_both_names_are_read(self, name: str) -> None:
        assert decode_one(state="failed", **{name: "moderation"}).failure_reason == "moderation"
        [task] = decode(envelope(row(None, **{"status": "FAILURE", name: "moderation"})))
        assert task.failure_reason == "moderation"

    def test_the_inner_reason_comes_before_the_one_of_the_row(self) -> None:
        [task] = decode(
            envelope(
                row({"state": "failed", "failure_reason": "inner"}, status="FAILURE", fail_reason="outer")
            )
        )
        assert task.failure_reason == "inner"

    def test_a_success_with_a_url_in_fail_reason_has_not_failed(self, seed_task: dict[str, Any]) -> None:
        [task] = decode(envelope(row(seed_task, status="SUCCESS", fail_reason=CLEAN)))
        assert (task.state, task.failure_reason) == (TaskState.COMPLETED, None)

    @pytest.mark.parametrize("reason", ["", None])
    def test_a_failure_may_have_no_reason(self, reason: str | None) -> None:
        assert decode_one(state="failed", failure_reason=reason).failure_reason is None


BROKEN = {
    "the state is a number": b'{"id": "bad", "state": 5}',
    "a text is invalid UTF-8": b'{"id": "bad", "state": "\xff\xfe"}',
    "a word is not JSON": b'{"id": "bad", "state": undefined}',
    "the row is malformed": b'{"id": 1, "task_id": "bad", "status": {}, "data": {"id": "other"}}',
    "the task in the row is malformed": b'{"id": 1, "task_id": "bad", "data": {"id": "bad", "state": []}}',
    "the task id is null": b'{"id": "bad", "task_id": null, "state": 5}',
    "a comma is missing": b'{"id": "bad", "state": "pending" "x": 1}',
}
NAMELESS = {
    "a number": b"5",
    "null": b"null",
    "a text": b'"bad"',
    "a list": b'[{"id": "bad"}]',
    "an id that is a number": b'{"id": 5, "state": "pending"}',
    "an id that is no id": b'{"id": "../x", "state": "pending"}',
    "no id": b'{"state": "pending"}',
    "a row number alone": b'{"id": 7, "task_id": null, "status": "SUCCESS"}',
}


# Each stands where a member of a task or a file may be; what is not JSON at all included.
ODD = {
    "a text": b'"1360"',
    "a text with a unit": b'"5s"',
    "an empty text": b'""',
    "a list": b"[]",
    "a list of objects": b"[{}, {}]",
    "an object": b"{}",
    "an object with a text": b'{"message": "odd"}',
    "false": b"false",
    "NaN": b"NaN",
    "infinity": b"-Infinity",
    "a number that is too large": b"1e999",
    "400 digits": b"9" * 400,
    "10,000 digits": b"9" * 10_000,
    "half a surrogate pair": b'"a cat \\ud83d"',
    "invalid UTF-8": b'"a cat \xff\xfe"',
    "a control character": b'"a\x01b"',
    "deep nesting": b"[" * 20_000 + b"]" * 20_000,
    "a hexadecimal number": b"0x1f",
    "a word": b"undefined",
}
FIELDS = {
    "created_at": b'"created_at": %b',
    "request": b'"request": %b',
    "the prompt": b'"request": {"prompt": %b}',
    "the ratio": b'"request": {"aspect_ratio": %b}',
    "artifact": b'"artifact": %b',
    "thumbnail": b'"thumbnail": %b',
    "last_frame": b'"last_frame": %b',
    "failure_reason": b'"failure_reason": %b',
    "error": b'"error": %b',
    "an unknown field": b'"palette": %b',
}
FILE_FIELDS = ("width", "height", "duration", "media_type", "thumbnail", "palette")


class TestOddFields:
    @pytest.mark.parametrize("odd", ODD.values(), ids=ODD.keys())
    @pytest.mark.parametrize("field", FIELDS.values(), ids=FIELDS.keys())
    def test_an_odd_field_of_a_task_is_dropped_alone(self, field: bytes, odd: bytes) -> None:
        task = b'{"id": "t1", "state": "completed", %b, "video": {"url": "%b"}}' % (
            field % odd,
            MARKED.encode(),
        )
        row = b'{"code": "success", "data": [{"id": 1, "task_id": "t1", "status": "SUCCESS", "data": %b}]}'
        for body in (task, b"[%b]" % task, row % task):
            [found] = decode_tasks(body)
            assert (found.id, found.state, found.problem) == ("t1", TaskState.COMPLETED, None)
            assert found.video_url == MARKED

    @pytest.mark.parametrize("odd", ODD.values(), ids=ODD.keys())
    @pytest.mark.parametrize("field", FILE_FIELDS)
    def test_an_odd_field_of_a_file_is_dropped_alone(self, field: str, odd: bytes) -> None:
        video = b'{"%b": %b, "url": "%b"}' % (field.encode(), odd, MARKED.encode())
        [found] = decode_tasks(b'[{"id": "t1", "state": "completed", "video": %b}]' % video)
        assert (found.state, found.video_url) == (TaskState.COMPLETED, MARKED)

    @pytest.mark.parametrize(
        ("value", "number"),
        [
            ("1360", 1360),
            ("5s", 5),
            ("5.04", 5.04),
            ("0.5 sec", 0.5),
            ("wide", None),
            (-1, None),
            (True, None),
        ],
    )
    def test_a_number_may_be_a_text_with_or_without_its_unit(self, value: Any, number: Any) -> None:
        task = decode_one(video={"url": MARKED, "width": value, "duration": value})
        assert task.video == Media(url=MARKED, width=number, duration=number)

    def test_a_number_of_400_digits_is_no_size(self) -> None:
        assert decode_one(video={"url": MARKED, "width": 10**400}).video == Media(url=MARKED)

    @pytest.mark.parametrize("data", [None, "", [], "null", "soon", 5, False, {}])
    def test_a_row_around_anything_is_a_row(self, data: Any) -> None:
        [task] = decode(envelope(row(data, status="FAILURE", fail_reason="moderation")))
        assert (task.id, task.state, task.failure_reason) == ("t1", TaskState.FAILED, "moderation")

    def test_the_task_in_a_row_may_be_its_json_text(self, seed_task: dict[str, Any]) -> None:
        [task] = decode(envelope(row(json.dumps(seed_task), task_id=seed_task["id"])))
        assert [task] == decode([seed_task])

    def test_a_byte_order_mark_is_skipped(self) -> None:
        for body in (b'[{"id": "t1"}]', b'{"id": "t1", "state": "queued"}'):
            assert [task.id for task in decode_tasks(b"\xef\xbb\xbf" + body)] == ["t1"]

    @pytest.mark.parametrize("name", ["items", "generations", "tasks", "data"])
    def test_the_tasks_may_stand_behind_another_name(self, name: str, seed_task: dict[str, Any]) -> None:
        assert decode({name: [seed_task]}) == decode([seed_task])
        assert decode({"code": 0, "data": {name: [seed_task], "total": 1}}) == decode([seed_task])

    @pytest.mark.parametrize(
        "error", [None, False, 0, [], "", {}, {"code": 0, "message": ""}, {"code": "ok"}]
    )
    def test_an_error_that_says_nothing_is_none(self, error: Any, seed_task: dict[str, Any]) -> None:
        assert decode(seed_task | {"error": error}) == decode([seed_task])
        assert decode({"error": error, "data": [seed_task]}) == decode([seed_task])

    def test_one_odd_record_in_a_large_answer_hurts_no_other(self) -> None:
        tasks = [
            {"id": f"t{n}", "state": "completed", "video": {"url": MARKED}, "x": "y" * 500}
            for n in range(2000)
        ]
        for odd in ODD.values():
            body = json.dumps(tasks).encode().replace(b'"y', b'%b, "z": "y' % odd, 1)
            for answer in (body, b'{"code": "success", "data": %b}' % body):
                found = decode_tasks(answer)
                assert [task.id for task in found] == [task["id"] for task in tasks]
                assert {task.video_url for task in found} == {MARKED}


class TestTexts:
    EVIL = "\x1b]0;x\x07 \u202e sk-0123456789 \u009b31m\n" * 10_000

    def test_no_text_of_a_relay_is_kept_without_bound_or_with_odd_characters_or_the_key(self) -> None:
        clean = Cleaner("sk-0123456789")
        media = {"url": MARKED, "media_type": self.EVIL}
        fields = {"request": {"prompt": self.EVIL, "aspect_ratio": self.EVIL}, "video": media}
        for state in ("failed", self.EVIL, "completed"):
            body = json.dumps([{"id": "t1", "state": state, "failure_reason": self.EVIL, **fields}]).encode()
            [task] = decode_tasks(body, clean=clean)
            assert len(repr(task)) < MAX_PROMPT + 3 * MAX_TEXT
            assert repr(task).isprintable()
            assert not {"\\x1b", "\\u202e", "sk-0123456789"} & set(repr(task).split())
            assert "sk-0123456789" not in repr(task)

    def test_a_plain_text_is_only_cut(self) -> None:
        [task] = decode([{"id": "t1", "state": "completed", "request": {"prompt": "cat " * 5000}}])
        assert task.prompt == ("cat " * 5000)[:MAX_PROMPT] + "…"

    @pytest.mark.parametrize(
        "reason", [{"message": "bad"}, {"error": {"reason": "bad"}}, ["bad"], [{"msg": "bad"}]]
    )
    def test_a_reason_may_be_an_object_or_a_list(self, reason: Any) -> None:
        assert decode_one(state="failed", failure_reason=reason).failure_reason == "bad"
        assert decode_one(state="failed", error=reason).failure_reason == "bad"


class TestWhoseStateCounts:
    @pytest.mark.parametrize("word", ["processing", "queued", "paused", None, ""])
    def test_a_finished_row_beats_an_unfinished_task(self, word: Any) -> None:
        [task] = decode(envelope(row({"id": "t1", "state": word}, status="FAILURE", fail_reason="swept")))
        assert (task.state, task.failure_reason) == (TaskState.FAILED, "swept")

    def test_a_finished_task_beats_an_unfinished_row(self) -> None:
        [task] = decode(envelope(row({"id": "t1", "state": "failed", "failure_reason": "inner"})))
        assert (task.state, task.failure_reason) == (TaskState.FAILED, "inner")

    @pytest.mark.parametrize(("inner", "outer"), [("completed", "FAILURE"), ("failed", "SUCCESS")])
    def test_of_two_ends_a_usable_link_decides(self, inner: str, outer: str) -> None:
        with_link = {"id": "t1", "state": inner, "video": {"url": MARKED}}
        for video, state in (({}, TaskState.FAILED), ({"url": "null"}, TaskState.FAILED)):
            assert decode(envelope(row(with_link | {"video": video}, status=outer)))[0].state is state
        assert decode(envelope(row(with_link, status=outer)))[0].state is TaskState.COMPLETED

    @pytest.mark.parametrize("name", ["result_url", "fail_reason"])
    @pytest.mark.parametrize(
        "data", [None, "", {"id": "t1", "state": "processing"}, {"id": "t1", "video": {}}]
    )
    def test_the_only_link_may_stand_in_the_row(self, name: str, data: Any) -> None:
        [task] = decode(envelope(row(data, **{"status": "SUCCESS", name: RAW})))
        assert (task.state, task.video_url, task.failure_reason) == (TaskState.COMPLETED, RAW, None)

    def test_a_link_in_the_reason_of_a_failure_is_no_video(self) -> None:
        [task] = decode(envelope(row({"state": "completed"}, status="FAILURE", fail_reason=RAW)))
        assert (task.state, task.video_url) == (TaskState.FAILED, None)

    def test_a_state_that_is_not_understood_keeps_its_word_and_its_reason(self) -> None:
        task = decode_one(state="Asleep", failure_reason="no channel")
        assert (task.state, task.state_text, task.failure_reason) == (
            TaskState.UNKNOWN,
            "Asleep",
            "no channel",
        )
        assert decode_one(state="queued").state_text is None


class TestLinks:
    BAD = (
        "",
        "  ",
        "null",
        "x.mp4",
        "/x.mp4",
        "//cdn.test/x",
        "ftp://cdn.test/x",
        "javascript:alert(1)",
        "https://",
    )

    @pytest.mark.parametrize(
        "bad", [*BAD, "https:///x", "https://?x", "https://a\nb/", "https://a/\x1b", None, 5, {}]
    )
    def test_a_bad_link_is_dropped_alone(self, bad: Any) -> None:
        for video in ({"download_url": bad, "url": MARKED}, {"download_url": MARKED, "url": bad}):
            assert decode_one(video=video).video_url == MARKED
        assert decode_one(video={"url": bad}, video_raw={"url": RAW}).video_url == RAW
        assert decode_one(video=bad, artifact={"video": {"url": MARKED}}).video_url == MARKED

    def test_a_link_of_megabytes_is_dropped(self) -> None:
        assert decode_one(video={"url": MARKED, "download_url": MARKED + "x" * 10_000}).video_url == MARKED

    @pytest.mark.parametrize("link", ["HTTPS://cdn.test/V", "Https://cdn.test/V", " https://cdn.test/V\n"])
    def test_the_case_of_a_scheme_and_blanks_around_a_link_mean_nothing(self, link: str) -> None:
        assert decode_one(video={"url": link}).video_url == "https://cdn.test/V"

    @pytest.mark.parametrize(
        "fields",
        [
            {"video": RAW},
            {"assets": {"video": RAW}},
            {"assets": {"video": {"url": RAW}}},
            {"output": [{"type": "image", "url": MARKED}, {"type": "video", "url": RAW}]},
            {"output": [RAW]},
            {"output": RAW},
            {"metadata": {"url": RAW}},
            {"video_url": RAW},
            {"result_url": RAW},
        ],
    )
    def test_the_link_may_stand_elsewhere(self, fields: dict[str, Any]) -> None:
        assert decode_one(**fields).video_url == RAW

    def test_every_link_of_a_video_is_a_candidate_in_its_order(self) -> None:
        task = decode_one(video={"url": MARKED, "download_url": CLEAN}, video_raw={"url": RAW})
        assert task.video_urls == artifact_urls(task, "video") == (CLEAN, RAW, MARKED)
        assert task.video_url == CLEAN


class TestFloods:
    @pytest.mark.parametrize("record", [b"{}", b'{"id":"a"}', b"1", b"[]", b'{"id":"a","x":{}}', b'""'])
    @pytest.mark.parametrize("shape", [b"[%b]", b'{"code":"success","data":[%b]}'])
    def test_no_more_records_are_looked_at_than_asked_for(
        self, record: bytes, shape: bytes, mocker: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        made = mocker.spy(decoder._Decoder, "_record")
        flood = shape % b",".join([record] * 500_000)
        with suppress(LumaResponseError):
            # What fits into one chunk is decoded at once.
            assert len(decode_tasks(flood, most=100)) < 100_000
        assert made.call_count <= 100

    def test_an_answer_that_holds_more_than_it_may_is_warned_of(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        decode_tasks(b"[" + b",".join([b'{"id":"a"}'] * 100_000) + b"]", most=10)
        assert "more than 10 records" in caplog.text


class TestMalformedTasks:
    @staticmethod
    def answers(broken: bytes) -> dict[str, bytes]:
        before, after = (b'{"id": "%b", "state": "completed"}' % name.encode() for name in OTHERS)
        array = b"[" + b", ".join([before, broken, after]) + b"]"
        return {"bare": array, "envelope": b'{"code": "success", "message": "", "data": ' + array + b"}"}

    @pytest.mark.parametrize("shape", ["bare", "envelope"])
    @pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN.keys())
    def test_a_malformed_task_is_reported_and_does_not_hurt_the_others(
        self, broken: bytes, shape: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        before, bad, after = decode_tasks(self.answers(broken)[shape])
        assert (before.id, bad.id, after.id) == ("before", "bad", "after")
        assert before.state is after.state is TaskState.COMPLETED
        assert bad.state is TaskState.UNKNOWN
        assert bad.problem is not None
        assert "can't be read" in bad.problem
        assert "Luma task bad" in caplog.text

    @pytest.mark.parametrize("shape", ["bare", "envelope"])
    @pytest.mark.parametrize("broken", NAMELESS.values(), ids=NAMELESS.keys())
    def test_a_record_without_a_legible_id_is_warned_of_and_does_not_hurt_the_others(
        self, broken: bytes, shape: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        tasks = decode_tasks(self.answers(broken)[shape])
        assert [(task.id, task.problem) for task in tasks] == [(name, None) for name in OTHERS]
        assert [record.levelno for record in caplog.records] == [logging.WARNING]

    def test_an_array_that_breaks_off_gives_its_whole_tasks_and_names_the_broken_one(self) -> None:
        whole, broken = decode_tasks(b'[{"id": "a", "state": "failed"}, {"id": "b", "state": "comple')
        assert (whole.id, whole.state, whole.problem) == ("a", TaskState.FAILED, None)
        assert (broken.id, broken.state) == ("b", TaskState.UNKNOWN)
        assert broken.problem

    def test_an_envelope_that_breaks_off_gives_its_whole_tasks(self) -> None:
        tasks = decode_tasks(
            b'{"code": "success", "data": [{"task_id": "a", "status": "FAILURE"}, {"task_id": "b'
        )
        assert [(task.id, task.state) for task in tasks] == [("a", TaskState.FAILED)]

    @pytest.mark.parametrize(
        "broken", [*BROKEN.values(), b'{"id": 5, "state": "pending"}', b'{"state": "pending"}']
    )
    def test_a_single_malformed_record_is_a_problem_or_an_error_but_never_a_crash(
        self, broken: bytes
    ) -> None:
        try:
            [task] = decode_tasks(broken)
        except LumaResponseError:
            return
        assert (task.id, task.state) == ("bad", TaskState.UNKNOWN)
        assert task.problem

    def test_two_glued_documents_are_read_to_the_end_of_the_first(self) -> None:
        first = json.dumps(envelope(row({"id": "t1", "state": "completed"}))).encode()
        for glued in (b'{"error": {"message": "late"}}', b"[]", b"}", b"garbage \xff"):
            [task] = decode_tasks(first + glued)
            assert (task.id, task.state, task.problem) == ("t1", TaskState.COMPLETED, None)

    def test_two_glued_arrays_are_read_to_the_end_of_the_first(self) -> None:
        assert [task.id for task in decode_tasks(b'[{"id": "a", "state": "pending"}][{"id": "b"}]')] == ["a"]


class TestWhatIsNoAnswer:
    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"   ",
            b"null",
            b"true",
            b"17",
            b'"text"',
            b"{",
            b"[",
            b"{}",
            b'{"data": 5}',
            b'{"data": true}',
            b'{"data": "not an id!"}',
            b'{"data": [',
            b'{"code": "success", "message": ""}',
            b'{"code": 1.5, "data": []}',
            b"[1, 2]",
            b"[null]",
            b"<!DOCTYPE html><html><body>Just a moment...</body></html>",
            b"\xff\xfe\x00",
            b"[" * 100_000,
            b'{"data":' * 100_000,
            b'{"data": [' + b"[" * 100_000 + b"]" * 100_000 + b"]}",
            b'["' + b'\\"' * 500_000,
            b'{"data": ["' + b"\\" * 1_000_001,
            b'{"a" 1, 2}',
        ],
        ids=lambda body: repr(body[:30]),
    )
    def test_anything_else_is_an_error_that_shows_how_it_begins(self, body: bytes) -> None:
        with pytest.raises(LumaResponseError, match="can't be understood") as caught:
            decode_tasks(body)
        assert caught.value.retryable
        assert not caught.value.well_formed
        assert len(str(caught.value)) < 1500

    def test_an_error_document_with_a_success_status_is_an_error(self) -> None:
        with pytest.raises(LumaServerError, match="boom") as caught:
            decode({"error": {"message": "boom", "type": "new_api_error", "code": ""}})
        assert caught.value.status == 200
        assert caught.value.well_formed

    @pytest.mark.parametrize(
        ("body", "kind"),
        [
            ({"error": "no"}, LumaServerError),
            ({"success": False, "message": "no"}, LumaServerError),
            ({"success": False, "data": [{"id": "t1"}]}, LumaServerError),
            ({"code": "fail", "message": "no", "data": None}, LumaServerError),
            ({"code": 500, "message": "no", "data": None}, LumaServerError),
            ({"code": "task_not_exist", "message": "no", "data": None}, LumaTaskNotFoundError),
            ({"code": "insufficient_user_quota", "message": "no"}, LumaQuotaError),
            ({"error": {"message": "当前分组上游负载已饱和，请稍后再试"}}, LumaBusyError),
            ({"error": {"message": "该令牌额度已用尽"}}, LumaQuotaError),
        ],
    )
    def test_an_error_with_a_success_status_is_told_by_its_text(
        self, body: dict[str, Any], kind: type[LumaApiError]
    ) -> None:
        with pytest.raises(kind) as caught:
            decode(body)
        assert type(caught.value) is kind
        assert caught.value.well_formed

    def test_an_error_with_a_document_glued_behind_it_is_an_error(self) -> None:
        with pytest.raises(LumaServerError, match="first"):
            decode_tasks(b'{"error": {"message": "first"}}{"id": "t1", "state": "completed"}')

    def test_a_damaged_envelope_that_reports_an_error_is_an_error(self) -> None:
        with pytest.raises(LumaResponseError, match="boom"):
            decode_tasks(b'{"success": false, "message": "boom", "data": [0x1]}')

    @pytest.mark.parametrize("nothing", [None, "", {}])
    def test_an_empty_error_beside_data_is_none(self, nothing: Any) -> None:
        assert [task.id for task in decode(envelope(row(None), error=nothing))] == ["t1"]

    def test_html_is_not_taken_for_a_wrong_path(self) -> None:
        with pytest.raises(LumaResponseError) as caught:
            decode_tasks(b"<html>404</html>")
        assert not isinstance(caught.value, LumaEndpointError)


class TestRequests:
    def test_a_submit_holds_only_what_was_set(self) -> None:
        assert GenerationRequest(prompt="cat dance").body() == {"user_prompt": "cat dance"}
        assert ExtensionRequest(prompt="cat sleeps").body() == {"user_prompt": "cat sleeps"}

    def test_a_submit_holds_everything_that_was_set(self) -> None:
        fields = {
            "model_name": "ray-v2",
            "duration": "5s",
            "resolution": "720p",
            "aspect_ratio": "16:9",
            "expand_prompt": True,
            "loop": False,
            "image_url": "https://cdn.test/a.jpg",
            "image_end_url": "https://cdn.test/b.jpg",
            "notify_hook": "https://hook.test/",
        }
        assert GenerationRequest(prompt="cat dance", **fields).body() == {
            "user_prompt": "cat dance",
            **fields,
        }

    def test_extra_fields_are_sent_as_they_are_and_win(self) -> None:
        request = GenerationRequest(
            prompt="cat", duration="5s", extra_fields={"duration": "10", "concepts": [{"key": "orbit"}]}
        )
        assert request.body() == {"user_prompt": "cat", "duration": "10", "concepts": [{"key": "orbit"}]}

    def test_making_a_body_changes_nothing(self) -> None:
        request = GenerationRequest(prompt="cat", extra_fields={"seed": 1})
        request.body()["user_prompt"] = "dog"
        assert request.body() == {"user_prompt": "cat", "seed": 1}

    @pytest.mark.parametrize("prompt", ["", "  \n", None, 5, ["cat"]])
    @pytest.mark.parametrize("kind", [GenerationRequest, ExtensionRequest])
    def test_a_request_without_a_prompt_is_refused(self, kind: Any, prompt: Any) -> None:
        with pytest.raises(LumaConfigError, match="prompt"):
            kind(prompt=prompt)

    @pytest.mark.parametrize("name", ["model_name", "duration", "resolution", "aspect_ratio", "loop"])
    def test_an_extension_has_no_field_that_only_a_generation_takes(self, name: str) -> None:
        with pytest.raises(TypeError, match=name):
            ExtensionRequest(prompt="cat", **{name: "x"})

    def test_values_are_frozen(self) -> None:
        for value in (GenerationRequest(prompt="cat"), LumaTask("t1", TaskState.PENDING), Media()):
            with pytest.raises(AttributeError):
                setattr(value, msgspec.structs.fields(value)[0].name, "x")
