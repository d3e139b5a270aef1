# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import logging
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest

from airflow_provider_luma.client import LumaTask, TaskState, decode_tasks, decoder
from airflow_provider_luma.client.models import is_task_id
from airflow_provider_luma.exceptions import (
    LumaApiError,
    LumaBusyError,
    LumaEndpointError,
    LumaQuotaError,
    LumaResponseError,
    LumaServerError,
    LumaTaskNotFoundError,
)
from tests.support.answers import decode, envelope, row

OTHERS = ("before", "after")


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
    def test_an_error_with_a_success_status_is_recognised_by_its_text(
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
