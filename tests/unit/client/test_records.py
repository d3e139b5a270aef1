# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from airflow_provider_luma.client import TaskState, decode_tasks, records
from airflow_provider_luma.client.artifacts import artifact_urls
from airflow_provider_luma.client.models import Media
from airflow_provider_luma.text import MAX_PROMPT, MAX_TEXT, Cleaner
from tests.support.answers import decode, decode_one, envelope, row

CLEAN, RAW, MARKED = "https://cdn.test/clean.mp4", "https://cdn.test/raw.mp4", "https://cdn.test/marked.mp4"


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

    def test_files_may_be_in_the_artifact_alone(self, seed_task: dict[str, Any]) -> None:
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
    def test_a_link_that_is_not_http_is_dropped_and_logged(
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
