# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from airflow.triggers.base import TaskFailedEvent, TaskSkippedEvent, TaskSuccessEvent, TriggerEvent

from airflow_provider_luma.triggers.luma import LumaTaskTrigger
from airflow_provider_luma.waiting.progress import Report

PATH = "airflow_provider_luma.triggers.luma.LumaTaskTrigger"


def make(**arguments: Any) -> LumaTaskTrigger:
    return LumaTaskTrigger(**{"luma_task_ids": ["a"], "poll_interval": 15.0, **arguments})


class TestSerialize:
    @pytest.mark.parametrize(
        "arguments",
        [
            {},
            {"luma_task_ids": ("a", "b"), "time_limit": {"seconds": 5, "deadline": 1.5, "grace": 120}},
            {"luma_task_ids": "{{ params.ids }}", "max_failed": None, "missing_polls": 9},
            {"progress": {"states": {"a": "processing"}}, "end_states": {"done": "success"}},
            {"luma_conn_id": "other", "time_limit": {"seconds": 5, "name": "execution_timeout"}},
        ],
    )
    def test_it_is_rebuilt_from_json(self, arguments: dict[str, Any]) -> None:
        path, given = make(**arguments).serialize()

        assert path == PATH
        assert LumaTaskTrigger(**json.loads(json.dumps(given))).serialize() == (path, given)

    def test_no_argument_is_forgotten(self) -> None:
        parameters = set(LumaTaskTrigger.__init__.__kwdefaults__ or ()) | {"luma_task_ids", "poll_interval"}

        assert set(make().serialize()[1]) == parameters


class TestEvents:
    @pytest.mark.parametrize(
        ("verdict", "end_states", "kind", "xcoms"),
        [
            (
                "done",
                {"done": "success"},
                TaskSuccessEvent,
                {"failed": {"b": "no"}, "return_value": ["a"]},
            ),
            ("failed", {"failed": "failed"}, TaskFailedEvent, {"failed": {"b": "no"}}),
            ("timed_out", {"timed_out": "skipped"}, TaskSkippedEvent, {"failed": {"b": "no"}}),
        ],
    )
    def test_the_trigger_ends_the_task_at_verdicts_that_are_named(
        self, verdict: Any, end_states: dict[str, str], kind: type[TriggerEvent], xcoms: dict[str, Any]
    ) -> None:
        report = Report(verdict, "what happened", {"b": "no"}, ["a"])

        event = make(end_states=end_states)._event(report)

        assert type(event) is kind
        assert event.xcoms == xcoms  # type: ignore[attr-defined]

    @pytest.mark.parametrize("end_states", [{}, {"done": "success"}])
    def test_at_others_a_worker_resumes_with_the_report(self, end_states: dict[str, str]) -> None:
        report = Report("unreachable", "what happened", {}, ["a"], "execution_timeout")

        event = make(end_states=end_states)._event(report)

        assert type(event) is TriggerEvent
        assert event.payload == {
            "verdict": "unreachable",
            "message": "what happened",
            "failed": {},
            "completed": ["a"],
            "timed_out_by": "execution_timeout",
        }

    def test_ids_that_can_not_be_are_reported_and_not_raised(self) -> None:
        async def first() -> Any:
            return await anext(aiter(make(luma_task_ids="no id!").run()))

        payload = asyncio.run(first()).payload

        assert payload["verdict"] == "refused"
        assert "luma_task_ids holds 'no id!'" in payload["message"]
