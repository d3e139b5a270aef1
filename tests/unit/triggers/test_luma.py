# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import asyncio
import json
import time
from datetime import UTC, datetime, timezone
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
            {"luma_task_ids": ("a", "b"), "deadline": 1.5, "waited": "the timeout of 5 s"},
            {"luma_task_ids": "{{ params.ids }}", "timeout": 5, "max_failed": None, "missing_polls": 9},
            {"progress": {"states": {"a": "processing"}}, "end_states": {"done": "success"}},
            {"luma_conn_id": "other", "timed_out_by": "execution_timeout"},
        ],
    )
    def test_it_is_rebuilt_from_json(self, arguments: dict[str, Any]) -> None:
        path, given = make(**arguments).serialize()

        assert path == PATH
        assert LumaTaskTrigger(**json.loads(json.dumps(given))).serialize() == (path, given)

    def test_no_argument_is_forgotten(self) -> None:
        parameters = set(LumaTaskTrigger.__init__.__kwdefaults__) | {"luma_task_ids", "poll_interval"}

        assert set(make().serialize()[1]) == parameters


class TestDeadline:
    def test_a_deadline_stands(self) -> None:
        assert make(deadline=17.5, timeout=5)._give_up_at() == 17.5

    @pytest.mark.parametrize("zone", [UTC, None])
    def test_without_one_it_is_reckoned_from_what_the_triggerer_keeps_over_a_restart(
        self, zone: timezone | None
    ) -> None:
        trigger = make(timeout=5, grace=120)
        trigger.timeout_after = datetime.fromtimestamp(1125, UTC).replace(tzinfo=zone)  # type: ignore[attr-defined]

        assert trigger._give_up_at() == 1005

    def test_where_nothing_is_kept_the_timeout_counts_from_now(self) -> None:
        before = time.time()

        assert before + 5 <= make(timeout=5)._give_up_at() <= time.time() + 5


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
    def test_at_others_a_worker_goes_on_with_the_report(self, end_states: dict[str, str]) -> None:
        report = Report("unreachable", "what happened", {}, ["a"])

        event = make(end_states=end_states, timed_out_by="execution_timeout")._event(report)

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
        assert "got 'no id!'" in payload["message"]
