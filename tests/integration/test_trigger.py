# SPDX-License-Identifier: Apache-2.0
"""The trigger as a triggerer runs it: in an event loop that it must not hold up, and may lose at any time."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any

import psutil
import pytest
from airflow.models.trigger import Trigger
from airflow.providers.common.compat.connection import get_async_connection
from airflow.providers.common.compat.sdk import AirflowNotFoundException, BaseHook
from airflow.sdk.module_loading import import_string  # type: ignore[attr-defined]
from airflow.triggers.base import TaskFailedEvent, TaskSuccessEvent

from airflow_provider_luma.sandbox import LumaSandbox, TaskScript, faults
from airflow_provider_luma.triggers.luma import LumaTaskTrigger
from airflow_provider_luma.waiting import poller
from airflow_provider_luma.waiting.time_limit import TimeLimit
from tests.support.patience import PATIENCE


def rebuilt(trigger: LumaTaskTrigger) -> LumaTaskTrigger:
    """The trigger as another triggerer gets it: from its row in Airflow's database."""
    row = Trigger.from_object(trigger)
    other = import_string(row.classpath)(**row.kwargs)
    assert isinstance(other, LumaTaskTrigger)
    return other


def within(seconds: float) -> TimeLimit:
    return TimeLimit(seconds=seconds, deadline=time.time() + seconds)


def make(ids: list[str], **arguments: Any) -> LumaTaskTrigger:
    given = {"poll_interval": 0.1, "time_limit": within(PATIENCE), **arguments}
    return LumaTaskTrigger(luma_task_ids=ids, **given)


async def first_event(trigger: LumaTaskTrigger) -> Any:
    return await anext(aiter(trigger.run()))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        # What is waited for happens in other threads, which set no event.
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def cancel(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def run(main: Coroutine[Any, Any, Any]) -> Any:
    """Run as a triggerer does; an error in a task that is not awaited is an error of the test."""
    unhandled: list[dict[str, Any]] = []

    async def watched() -> Any:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: unhandled.append(context))
        return await main

    result = asyncio.run(watched())
    assert unhandled == []
    return result


def poll_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("luma-poll")]


def connections_to(sandbox: LumaSandbox) -> list[Any]:
    return [
        connection
        for connection in psutil.Process().net_connections("tcp")
        if connection.raddr and connection.raddr.port == sandbox.port and connection.status == "ESTABLISHED"
    ]


class TestSerialization:
    @pytest.mark.every_airflow
    def test_arguments_are_json_and_rebuild_an_equal_trigger(self, metadata_database: None) -> None:
        trigger = LumaTaskTrigger(
            luma_task_ids=("a", "b"),
            luma_conn_id="luma_other",
            poll_interval=12.5,
            time_limit=TimeLimit(seconds=77.5, name="execution_timeout", deadline=1_800_000_000.25, grace=9),
            max_failed=None,
            missing_polls=4,
            progress={"states": {"a": "processing"}, "anomalies": {"b": {"kind": "missing", "polls": 2}}},
            end_states={"done": "success"},
        )

        classpath, arguments = trigger.serialize()

        assert json.loads(json.dumps(arguments)) == arguments
        assert rebuilt(trigger).serialize() == (classpath, arguments)

    def test_the_key_is_no_part_of_it(self, connected: LumaSandbox) -> None:
        assert connected.api_key not in json.dumps(make(["a"]).serialize())

    def test_the_event_is_json(self, connected: LumaSandbox) -> None:
        good, bad = connected.add_task(state="completed"), connected.add_task(fails_with="no")

        event = run(first_event(make([good, bad], max_failed=1)))

        assert json.loads(json.dumps(event.payload)) == event.payload
        assert event.payload["verdict"] == "done"
        assert event.payload["failed"] == {bad: "no"}


class TestRestart:
    @pytest.mark.every_airflow
    def test_a_trigger_that_is_dropped_in_mid_wait_resumes_in_another_loop(
        self, connected: LumaSandbox, metadata_database: None
    ) -> None:
        task_id = connected.add_task(completes_after=3600)
        trigger = make([task_id], poll_interval=0.05)

        async def wait_a_while() -> None:
            waiting = asyncio.create_task(first_event(trigger))
            await until(lambda: connected.count("batch") >= 2)
            await cancel(waiting)

        run(wait_a_while())
        other = rebuilt(trigger)
        connected.advance(3600)
        asked = connected.count("batch")
        event = run(first_event(other))

        assert other.time_limit == trigger.time_limit
        assert event.payload["verdict"] == "done"
        assert connected.count("batch") == asked + 1

    def test_the_deadline_does_not_move_with_the_trigger(
        self, connected: LumaSandbox, metadata_database: None
    ) -> None:
        task_id = connected.add_task(state="processing")
        limit = within(1.5)
        trigger = make([task_id], time_limit=limit)

        async def wait_a_while() -> None:
            waiting = asyncio.create_task(first_event(trigger))
            await until(lambda: connected.count("batch") >= 1)
            await cancel(waiting)

        run(wait_a_while())
        event = run(first_event(rebuilt(trigger)))

        assert event.payload["verdict"] == "timed_out"
        assert (
            "not finished after the timeout of 1.5 s: 0/1 completed, 1 processing" in event.payload["message"]
        )
        assert time.time() >= (limit.deadline or 0)

    def test_a_deadline_that_passed_while_no_triggerer_ran_still_allows_a_last_look(
        self, connected: LumaSandbox
    ) -> None:
        done = connected.add_task(state="completed")

        event = run(first_event(make([done], time_limit=within(-100))))

        assert event.payload["verdict"] == "done"

    def test_what_was_known_at_the_deferral_counts(self, connected: LumaSandbox) -> None:
        done, open_ = connected.add_tasks([TaskScript(state="completed")] * 2)
        progress = {"states": {done: "completed"}}

        event = run(first_event(make([done, open_], progress=progress)))

        assert event.payload["verdict"] == "done"
        assert [call.ids for call in connected.calls] == [(open_,)]


class TestEventLoop:
    def test_the_loop_is_not_blocked_while_the_relay_is_slow(self, connected: LumaSandbox) -> None:
        task_id = connected.add_task(state="completed")
        connected.fail_next("batch", faults.latency(1))

        async def main() -> int:
            beats = 0
            waiting = asyncio.create_task(first_event(make([task_id])))
            await until(lambda: connected.count("batch") == 1)
            while not waiting.done():
                await asyncio.sleep(0.01)
                beats += 1
            return beats

        # A loop that is held up by the call would beat once.
        assert run(main()) > 10

    def test_the_loop_is_not_blocked_while_the_connection_is_read(
        self, connected: LumaSandbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The secrets backend answers only after the loop has beaten ten times."""
        task_id = connected.add_task(state="completed")
        beaten = threading.Event()
        read = BaseHook.get_connection.__func__  # type: ignore[attr-defined]

        def slow(cls: type, conn_id: str) -> Any:
            assert beaten.wait(PATIENCE), "the event loop stands still"
            return read(cls, conn_id)

        monkeypatch.setattr(BaseHook, "get_connection", classmethod(slow))
        monkeypatch.setattr(
            "airflow.secrets.environment_variables.EnvironmentVariablesBackend.get_conn_value",
            lambda self, conn_id: beaten.wait(PATIENCE) and connected.airflow_connection,
        )

        async def main() -> Any:
            waiting = asyncio.create_task(first_event(make([task_id])))
            for _ in range(10):
                await asyncio.sleep(0.02)
            beaten.set()
            return await waiting

        assert run(main()).payload["verdict"] == "done"


class TestSharing:
    @pytest.mark.every_airflow
    def test_triggers_share_their_calls_and_get_their_own_ids(self, connected: LumaSandbox) -> None:
        groups = [connected.add_tasks([TaskScript(state="completed")] * 3) for _ in range(30)]

        async def main() -> list[Any]:
            triggers = [make(group, poll_interval=0.5) for group in groups]
            return await asyncio.gather(*map(first_event, triggers))

        events = run(main())

        assert [event.payload["completed"] for event in events] == groups
        # One call holds all 90 ids; a slow machine may start some triggers a little late.
        assert connected.count("batch") < 10

    def test_one_that_is_cancelled_leaves_the_others_waiting(self, connected: LumaSandbox) -> None:
        mine, yours = connected.add_tasks([TaskScript(completes_after=3600)] * 2)

        async def main() -> Any:
            cancelled = asyncio.create_task(first_event(make([mine], poll_interval=0.05)))
            kept = asyncio.create_task(first_event(make([yours], poll_interval=0.05)))
            await until(lambda: connected.count("batch") >= 1)
            await cancel(cancelled)
            connected.advance(3600)
            return await kept

        assert run(main()).payload["completed"] == [yours]
        assert connected.calls[-1].ids == (yours,)


class TestCancellation:
    @pytest.mark.parametrize("fault", [None, faults.latency(0.5)], ids=["between calls", "in a call"])
    def test_nothing_is_left(self, connected: LumaSandbox, fault: faults.Fault | None) -> None:
        task_id = connected.add_task(state="processing")
        if fault is not None:
            connected.fail_when("batch", fault)

        async def main() -> None:
            before = asyncio.all_tasks()
            triggers = [make([task_id]), make([task_id], poll_interval=0.2)]
            waiting = [asyncio.create_task(first_event(trigger)) for trigger in triggers]
            await until(lambda: connected.count("batch") >= 1)
            assert poll_threads()

            await cancel(*waiting)

            loop = asyncio.get_running_loop()
            assert not poller._pollers.get(loop)
            await until(lambda: asyncio.all_tasks() == before)
            await until(lambda: not poll_threads() and not connections_to(connected))

        run(main())

    def test_nothing_is_left_after_the_event_either(self, connected: LumaSandbox) -> None:
        task_id = connected.add_task(state="completed")

        async def main() -> None:
            before = asyncio.all_tasks()
            events = aiter(make([task_id]).run())
            await anext(events)
            assert [event async for event in events] == []
            assert not poller._pollers.get(asyncio.get_running_loop())
            await until(lambda: asyncio.all_tasks() == before)
            await until(lambda: not poll_threads() and not connections_to(connected))

        run(main())

    def test_the_next_waiter_starts_a_new_poller(self, connected: LumaSandbox) -> None:
        ids = connected.add_tasks([TaskScript(state="completed")] * 2)

        async def main() -> list[Any]:
            return [await first_event(make([task_id])) for task_id in ids]

        assert [event.payload["completed"] for event in run(main())] == [[ids[0]], [ids[1]]]


class TestFailingRelay:
    def test_a_connection_that_can_not_be_read_for_a_while_is_waited_for(
        self, connected: LumaSandbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        task_id = connected.add_task(state="completed")
        outages = iter([1, 2])
        read = get_async_connection

        async def flaky(conn_id: str) -> Any:
            if next(outages, None):
                raise AirflowNotFoundException(f"The conn_id `{conn_id}` isn't defined")
            return await read(conn_id)

        monkeypatch.setattr("airflow_provider_luma.hooks.luma.get_async_connection", flaky)

        assert run(first_event(make([task_id]))).payload["verdict"] == "done"

    def test_a_relay_that_stays_out_of_reach_is_given_up(
        self, connected: LumaSandbox, connect: Callable[..., None]
    ) -> None:
        connect(connected.base_url, connected.api_key, max_poll_failures=3)
        connected.fail_when("batch", faults.do_request_failed())

        event = run(first_event(make(["a"], poll_interval=0.05)))

        assert event.payload["verdict"] == "unreachable"
        assert "3 times in a row" in event.payload["message"]
        assert connected.count("batch") == 3

    def test_a_key_that_was_rotated_in_mid_wait_is_read_again(
        self, connected: LumaSandbox, connect: Callable[..., None]
    ) -> None:
        task_id = connected.add_task(state="completed", hidden_for=1)
        connected.fail_when(
            "batch",
            faults.unauthorized(),
            lambda call: connected.count("batch") == 2,
        )

        async def main() -> Any:
            waiting = asyncio.create_task(first_event(make([task_id])))
            await until(lambda: connected.count("batch") >= 1)
            connect(connected.base_url, connected.api_key, read_timeout=31)
            return await waiting

        assert run(main()).payload["verdict"] == "done"

    def test_a_wrong_key_is_refused_without_being_shown(
        self, connected: LumaSandbox, connect: Callable[..., None]
    ) -> None:
        connect(connected.base_url, "sk-not-the-key")

        event = run(first_event(make(["a"])))

        assert event.payload["verdict"] == "refused"
        assert "refuses the API key" in event.payload["message"]
        assert "sk-not-the-key" not in json.dumps(event.payload)

    def test_ids_that_are_none_are_refused(self, connected: LumaSandbox) -> None:
        event = run(first_event(make(["no id!"])))

        assert event.payload["verdict"] == "refused"
        assert "got 'no id!'" in event.payload["message"]
        assert connected.count("batch") == 0


class TestEndingTheTask:
    def test_success_carries_the_xcoms_of_the_sensor(self, connected: LumaSandbox) -> None:
        good, bad = connected.add_task(state="completed"), connected.add_task(fails_with="no")

        event = run(first_event(make([bad, good], max_failed=1, end_states={"done": "success"})))

        assert isinstance(event, TaskSuccessEvent)
        assert event.xcoms == {"return_value": [good], "failed": {bad: "no"}}

    def test_failure_carries_the_reasons(self, connected: LumaSandbox) -> None:
        bad = connected.add_task(fails_with="no")

        event = run(first_event(make([bad], end_states={"failed": "failed"})))

        assert isinstance(event, TaskFailedEvent)
        assert event.xcoms == {"failed": {bad: "no"}}
