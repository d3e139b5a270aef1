# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import (
    AirflowFailException,
    AirflowNotFoundException,
    AirflowSensorTimeout,
    AirflowSkipException,
    AirflowTaskTimeout,
    TaskDeferred,
)

from airflow_provider_luma.client import LumaTask, Media, TaskState
from airflow_provider_luma.exceptions import (
    LumaAuthError,
    LumaBusyError,
    LumaConfigError,
    LumaConnectionError,
    LumaError,
    LumaUnavailableError,
)
from airflow_provider_luma.sensors import luma as sensor_module
from airflow_provider_luma.sensors.luma import LumaTaskSensor

NOW = 1_800_000_000.0
VIDEO = Media(url="https://cdn.test/video.mp4")


def completed(task_id: str) -> LumaTask:
    return LumaTask(id=task_id, state=TaskState.COMPLETED, video=VIDEO)


def processing(task_id: str) -> LumaTask:
    return LumaTask(id=task_id, state=TaskState.PROCESSING)


def failed(task_id: str) -> LumaTask:
    return LumaTask(id=task_id, state=TaskState.FAILED, failure_reason="no")


class Relay:
    """A client that gives the answers of its script, and the last one for ever."""

    batch_size = 100

    def __init__(self, *answers: Sequence[LumaTask] | LumaError) -> None:
        self.answers = list(answers)
        self.asked: list[list[str]] = []

    def get_tasks(self, ids: Sequence[str]) -> dict[str, LumaTask]:
        self.asked.append(list(ids))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, LumaError):
            raise answer
        return {task.id: task for task in answer if task.id in ids}


class Run:
    """What a task finds in its context."""

    def __init__(self, *, try_number: int = 1, polls: int = 0, store: Any = None) -> None:
        self.xcoms: dict[str, Any] = {}
        self.ti = SimpleNamespace(
            start_date=datetime.fromtimestamp(NOW, UTC),
            try_number=try_number,
            xcom_push=self._push,
            get_first_reschedule_date=lambda context: None,
        )
        self.context: Any = {"ti": self.ti, "task_reschedule_count": polls, "task_state_store": store}

    def _push(self, key: str, value: Any) -> None:
        self.xcoms[key] = value


class Store:
    """A task state store."""

    def __init__(self) -> None:
        self.kept: dict[str, Any] = {}

    def get(self, key: str, default: Any = None) -> Any:
        return self.kept.get(key, default)

    def set(self, key: str, value: Any, *, retention: timedelta) -> None:
        # What is kept is JSON.
        self.kept[key] = json.loads(json.dumps(value))
        self.retention = retention


def make(ids: Any, relay: Relay | None = None, **arguments: Any) -> LumaTaskSensor:
    sensor = LumaTaskSensor(task_id="wait", luma_task_ids=ids, **arguments)
    settings = SimpleNamespace(max_poll_failures=2)
    sensor.__dict__["hook"] = SimpleNamespace(settings=settings, client=relay)
    sensor._started = NOW
    return sensor


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    clock = SimpleNamespace(now=NOW)
    monkeypatch.setattr(time, "time", lambda: clock.now)
    return clock


class TestArguments:
    def test_defaults_suit_video_generation(self) -> None:
        sensor = LumaTaskSensor(task_id="wait", luma_task_ids=["a"])

        assert (sensor.poke_interval, sensor.timeout) == (15, 3600)
        assert (sensor.max_failed, sensor.missing_polls) == (0, 3)
        assert sensor.luma_conn_id == "luma_default"
        assert sensor.mode == "poke"
        assert set(sensor.template_fields) == {"luma_task_ids", "luma_conn_id"}

    def test_times_may_be_timedeltas(self) -> None:
        sensor = LumaTaskSensor(
            task_id="wait",
            luma_task_ids=["a"],
            poke_interval=timedelta(minutes=1),
            timeout=timedelta(hours=2),
        )

        assert (sensor.poke_interval, sensor.timeout) == (60, 7200)

    @pytest.mark.parametrize(
        "ids", [["no id!"], "no id!", "a,b", [""], [7], {"a": 1}, b"a", None, 7, ["a" * 129], '["a"']
    )
    def test_ids_that_can_not_be_are_refused_where_they_are_written(self, ids: Any) -> None:
        with pytest.raises(LumaConfigError, match="luma_task_ids"):
            LumaTaskSensor(task_id="wait", luma_task_ids=ids)

    @pytest.mark.parametrize(
        "ids",
        [[], ["a"], "a", ("a", "b"), '["a", "b"]', "['a']", "{{ params.ids }}", ["{{ params.id }}", "a"]],
    )
    def test_ids_that_can_be_are_taken(self, ids: Any) -> None:
        LumaTaskSensor(task_id="wait", luma_task_ids=ids)

    @pytest.mark.parametrize(
        ("argument", "value"),
        [
            ("max_failed", -1),
            ("max_failed", 1.5),
            ("max_failed", True),
            ("max_failed", "1"),
            ("missing_polls", 0),
            ("missing_polls", None),
        ],
    )
    def test_numbers_that_can_not_be_are_named_with_what_is_right(self, argument: str, value: Any) -> None:
        with pytest.raises(LumaConfigError, match=f"{argument} must be a whole number of at least") as caught:
            LumaTaskSensor(task_id="wait", luma_task_ids=["a"], **{argument: value})

        assert repr(value) in str(caught.value)


class TestEndFromTrigger:
    @pytest.mark.parametrize(
        ("arguments", "named"),
        [
            ({"deferrable": False}, "deferrable=True"),
            ({"outlets": ["an asset"]}, "outlets"),
            ({"do_xcom_push": False}, "do_xcom_push=False"),
            ({"post_execute": print}, "post_execute"),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )
    def test_what_only_a_worker_can_do_is_refused(self, arguments: dict[str, Any], named: str) -> None:
        with pytest.raises(LumaConfigError, match=named):
            make(["a"], **{"deferrable": True, "end_from_trigger": True, **arguments})

    def test_a_custom_xcom_backend_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AIRFLOW__CORE__XCOM_BACKEND", "somewhere.Else")

        with pytest.raises(LumaConfigError, match=r"somewhere\.Else"):
            make(["a"], deferrable=True, end_from_trigger=True)

    @pytest.mark.parametrize(
        ("arguments", "states"),
        [
            ({}, {"done": "success", "failed": "failed", "timed_out": "failed", "refused": "failed"}),
            ({"retries": 2}, {"done": "success"}),
            (
                {"retries": 2, "soft_fail": True},
                {"done": "success", "failed": "skipped", "timed_out": "skipped", "refused": "skipped"},
            ),
        ],
        ids=["plain", "with retries", "soft_fail"],
    )
    def test_a_failure_ends_in_the_trigger_only_where_no_retry_would_follow(
        self, arguments: dict[str, Any], states: Mapping[str, str]
    ) -> None:
        sensor = make(["a"], Relay([processing("a")]), deferrable=True, end_from_trigger=True, **arguments)

        with pytest.raises(TaskDeferred) as deferred:
            sensor.poke(Run().context)

        assert deferred.value.trigger.end_states == states


class TestStartFromTrigger:
    @pytest.fixture(autouse=True)
    def _airflow_3_3(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sensor_module, "AIRFLOW_V_3_3_PLUS", True)

    def test_it_needs_a_deferrable_sensor(self) -> None:
        with pytest.raises(LumaConfigError, match="deferrable=True"):
            make(["a"], start_from_trigger=True)

    @pytest.mark.parametrize("ids", ["{{ ti.xcom_pull('submit') }}", ["a", "{{ ti.xcom_pull('b') }}"]])
    def test_another_tasks_output_is_refused(self, ids: Any) -> None:
        with pytest.raises(LumaConfigError, match="can't resolve another task's output"):
            make(ids, deferrable=True, start_from_trigger=True)

    @pytest.mark.parametrize("ids", [["a", "b"], "{{ params.ids }}"])
    def test_the_trigger_gets_what_the_worker_would_have(self, ids: Any) -> None:
        sensor = make(ids, deferrable=True, start_from_trigger=True, timeout=60, max_failed=None)

        assert sensor.start_from_trigger
        start = sensor.start_trigger_args
        assert start is not None
        assert start.next_method == "execute_complete"
        arguments = start.trigger_kwargs or {}
        assert arguments["luma_task_ids"] == ids
        assert arguments["time_limit"]["seconds"] == 60
        assert arguments["max_failed"] is None

    def test_one_sensor_does_not_change_the_others(self) -> None:
        make(["a"], deferrable=True, start_from_trigger=True)

        assert not make(["a"], deferrable=True).start_from_trigger

    def test_an_older_airflow_starts_in_a_worker_and_says_so(
        self,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        monkeypatch.setattr(sensor_module, "AIRFLOW_V_3_3_PLUS", False)

        sensor = make(["a"], deferrable=True, start_from_trigger=True)

        assert not sensor.start_from_trigger
        assert "start_from_trigger needs Airflow 3.3" in caplog.text + capsys.readouterr().out


class TestPoke:
    def test_the_end_gives_the_completed_ids_and_the_reasons_of_the_others(self) -> None:
        run = Run()
        sensor = make(["a", "b", "c"], Relay([completed("c"), failed("b"), completed("a")]), max_failed=1)

        result = sensor.poke(run.context)

        assert result.is_done
        assert result.xcom_value == ["a", "c"]
        assert run.xcoms == {"failed": {"b": "no"}}

    def test_do_xcom_push_false_pushes_nothing(self) -> None:
        run = Run()

        make(["a"], Relay([completed("a")]), do_xcom_push=False).poke(run.context)

        assert run.xcoms == {}

    def test_what_is_done_is_not_asked_for_again(self) -> None:
        relay = Relay([completed("a"), processing("b")], [completed("b")])
        sensor = make(["a", "b"], relay)
        context = Run().context

        assert not sensor.poke(context).is_done
        assert sensor.poke(context).xcom_value == ["a", "b"]
        assert relay.asked == [["a", "b"], ["b"]]

    def test_passing_failures_are_waited_out_up_to_the_connections_limit(self) -> None:
        broken = LumaConnectionError("broken")
        sensor = make(["a"], Relay(broken, [processing("a")], broken, broken))
        context = Run().context

        assert not sensor.poke(context).is_done
        assert not sensor.poke(context).is_done
        assert not sensor.poke(context).is_done
        with pytest.raises(LumaUnavailableError, match="2 times in a row"):
            sensor.poke(context)

    def test_a_refusal_fails_without_retries(self) -> None:
        sensor = make(["a"], Relay(LumaAuthError("the key is wrong", status=401)))

        with pytest.raises(AirflowFailException, match="the key is wrong"):
            sensor.poke(Run().context)

    def test_a_refusal_after_a_poll_that_worked_is_waited_out_like_any_other_failure(self) -> None:
        refusal = LumaAuthError("the key is wrong", status=401, well_formed=True)
        context = Run().context
        sensor = make(["a"], Relay([processing("a")], refusal, [processing("a")], refusal, refusal))

        for _ in range(4):
            assert not sensor.poke(context).is_done
        with pytest.raises(LumaUnavailableError, match="2 times in a row"):
            sensor.poke(context)

    def test_the_next_poll_comes_when_the_relay_asks_for_it(self, clock: SimpleNamespace) -> None:
        busy = LumaBusyError("busy", status=429, retry_after=600)
        sensor = make(["a"], Relay(busy, [processing("a")]), timeout=1000, poke_interval=50)
        context = Run().context
        next_interval = partial(sensor._get_next_poke_interval, 0.0, lambda: 0.0, 1)

        sensor.poke(context)
        assert next_interval() == 600
        clock.now += 700
        assert next_interval() == 300
        sensor.poke(context)
        assert next_interval() == 50

    def test_the_timeout_names_the_ids_with_their_states(self, clock: SimpleNamespace) -> None:
        sensor = make(["a", "b"], Relay([processing("a"), completed("b")]), timeout=60)
        clock.now += 60

        with pytest.raises(AirflowSensorTimeout, match=r"after the timeout of 60 s: .*a \(processing\)"):
            sensor.poke(Run().context)

    def test_the_last_poll_comes_when_the_time_is_over(self, clock: SimpleNamespace) -> None:
        sensor = make(["a"], timeout=60, poke_interval=50)

        assert sensor._get_next_poke_interval(0.0, lambda: 0.0, 1) == 50
        clock.now += 50
        assert sensor._get_next_poke_interval(0.0, lambda: 50.0, 2) == 10
        clock.now += 60
        assert sensor._get_next_poke_interval(0.0, lambda: 110.0, 3) == 0


class TestDeferral:
    def test_it_asks_once_and_hands_over_what_it_knows(self) -> None:
        relay = Relay([completed("a"), processing("b")])
        sensor = make(["a", "b"], relay, deferrable=True, poke_interval=7, timeout=60)

        with pytest.raises(TaskDeferred) as deferred:
            sensor.poke(Run().context)

        trigger = deferred.value.trigger
        assert relay.asked == [["a", "b"]]
        assert trigger.luma_task_ids == ["a", "b"]
        assert trigger.poll_interval == 7
        assert trigger.time_limit.deadline == NOW + 60
        assert trigger.progress["states"] == {"a": "completed", "b": "processing"}
        assert deferred.value.method_name == "execute_complete"
        # Airflow's own timeout is for a triggerer that doesn't keep to the deadline.
        assert deferred.value.timeout > timedelta(seconds=60)

    def test_it_does_not_defer_when_the_first_answer_is_the_end(self) -> None:
        assert make(["a"], Relay([completed("a")]), deferrable=True).poke(Run().context).is_done

    def test_a_failure_of_the_first_poll_is_handed_over_too(self) -> None:
        sensor = make(["a"], Relay(LumaConnectionError("broken")), deferrable=True)

        with pytest.raises(TaskDeferred) as deferred:
            sensor.poke(Run().context)

        assert deferred.value.trigger.progress["poll_failures"]["polls"] == 1
        assert not deferred.value.trigger.progress["answered"]

    def test_a_poll_that_worked_is_handed_over_too(self) -> None:
        with pytest.raises(TaskDeferred) as deferred:
            make(["a"], Relay([]), deferrable=True).poke(Run().context)

        assert deferred.value.trigger.progress["answered"]

    @pytest.mark.parametrize(
        ("execution_timeout", "deadline", "by"),
        [(30, NOW + 30, "execution_timeout"), (90, NOW + 60, "timeout"), (None, NOW + 60, "timeout")],
    )
    def test_the_shorter_time_limit_is_the_deadline(
        self, execution_timeout: float | None, deadline: float, by: str
    ) -> None:
        sensor = make(
            ["a"],
            Relay([processing("a")]),
            deferrable=True,
            timeout=60,
            execution_timeout=execution_timeout and timedelta(seconds=execution_timeout),
        )

        with pytest.raises(TaskDeferred) as deferred:
            sensor.poke(Run().context)

        limit = deferred.value.trigger.time_limit
        assert (limit.deadline, limit.name, limit.seconds) == (deadline, by, deadline - NOW)

    def test_an_execution_timeout_never_ends_the_task_in_the_trigger(self) -> None:
        sensor = make(
            ["a"],
            Relay([processing("a")]),
            deferrable=True,
            end_from_trigger=True,
            execution_timeout=timedelta(seconds=30),
        )

        with pytest.raises(TaskDeferred) as deferred:
            sensor.poke(Run().context)

        assert "timed_out" not in deferred.value.trigger.end_states


class TestExecuteComplete:
    def event(self, verdict: str, **fields: Any) -> dict[str, Any]:
        return {
            "verdict": verdict,
            "message": "what happened",
            "failed": {},
            "timed_out_by": "timeout",
        } | fields

    def test_the_good_end(self) -> None:
        run = Run()
        event = self.event("done", failed={"b": "no"}, completed=["a"])

        assert make(["a", "b"]).execute_complete(run.context, event) == ["a"]
        assert run.xcoms == {"failed": {"b": "no"}}

    @pytest.mark.parametrize(
        ("verdict", "by", "kind"),
        [
            ("failed", "timeout", AirflowFailException),
            ("refused", "timeout", AirflowFailException),
            ("timed_out", "timeout", AirflowSensorTimeout),
            ("timed_out", "execution_timeout", AirflowTaskTimeout),
            ("unreachable", "timeout", LumaUnavailableError),
        ],
    )
    def test_each_bad_end_has_its_exception(self, verdict: str, by: str, kind: type[BaseException]) -> None:
        with pytest.raises(kind, match="what happened"):
            make(["a"]).execute_complete(Run().context, self.event(verdict, timed_out_by=by))

    def test_never_fail_skips_where_airflow_alone_would_not(self) -> None:
        with pytest.raises(AirflowSkipException):
            make(["a"], never_fail=True).execute_complete(Run().context, self.event("unreachable"))


class TestReschedule:
    def test_what_is_known_goes_from_poll_to_poll(self) -> None:
        store = Store()
        first = make(["a", "b"], Relay([completed("a")]), mode="reschedule", missing_polls=2, timeout=60)
        first.poke(Run(store=store).context)
        relay = Relay([completed("b")])
        second = make(["a", "b"], relay, mode="reschedule", missing_polls=2)

        result = second.poke(Run(store=store, polls=1).context)

        assert result.xcom_value == ["a", "b"]
        assert relay.asked == [["b"]]
        assert store.retention > timedelta(seconds=60)

    def test_missing_answers_are_counted_across_polls(self) -> None:
        store = Store()
        make(["a"], Relay([]), mode="reschedule", missing_polls=2).poke(Run(store=store).context)
        second = make(["a"], Relay([]), mode="reschedule", missing_polls=2)

        with pytest.raises(AirflowFailException, match="2 answers in a row"):
            second.poke(Run(store=store, polls=1).context)

    def test_a_new_try_forgets_the_progress(self) -> None:
        store = Store()
        make(["a"], Relay([]), mode="reschedule", missing_polls=2).poke(Run(store=store).context)
        retry = make(["a"], Relay([]), mode="reschedule", missing_polls=2)

        assert not retry.poke(Run(store=store, polls=1, try_number=2).context).is_done

    def test_an_airflow_without_a_store_counts_the_polls_instead(self) -> None:
        sensor = make(["a"], Relay([]), mode="reschedule", missing_polls=3)

        with pytest.raises(AirflowFailException, match="3 answers in a row"):
            sensor.poke(Run(polls=2).context)

    @pytest.mark.parametrize("kept", ["in the store", "lost", "without a store"])
    def test_a_refusal_after_a_poll_that_worked_is_waited_out(self, kept: str) -> None:
        refusal = LumaAuthError("the key is wrong", status=401, well_formed=True)
        store = None if kept == "without a store" else Store()
        make(["a"], Relay([processing("a")]), mode="reschedule").poke(Run(store=store).context)
        if kept == "lost" and store is not None:
            store.kept.clear()

        second = make(["a"], Relay(refusal), mode="reschedule")

        assert not second.poke(Run(store=store, polls=1).context).is_done

    def test_a_connection_that_can_not_be_read_for_a_while_is_waited_for_after_a_poll_that_worked(
        self,
    ) -> None:
        class Hook:
            @property
            def settings(self) -> Any:
                raise AirflowNotFoundException("The conn_id `luma_default` isn't defined")

        store = Store()
        make(["a"], Relay([processing("a")]), mode="reschedule").poke(Run(store=store).context)
        first, second = make(["a"], mode="reschedule"), make(["a"], mode="reschedule")
        first.__dict__["hook"] = second.__dict__["hook"] = Hook()

        assert not second.poke(Run(store=store, polls=1).context).is_done
        with pytest.raises(AirflowNotFoundException):
            first.poke(Run(store=Store()).context)

    def test_other_modes_keep_nothing(self) -> None:
        store = Store()

        make(["a"], Relay([processing("a")])).poke(Run(store=store).context)

        assert store.kept == {}
