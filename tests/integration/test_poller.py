# SPDX-License-Identifier: Apache-2.0
"""Many triggers in one event loop against a real relay: bad input fails its own wait, and no other."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import psutil
import pytest
from airflow.triggers.base import TriggerEvent

from airflow_provider_luma.sandbox import LumaSandbox, faults
from airflow_provider_luma.triggers import luma as trigger_module
from airflow_provider_luma.triggers.luma import LumaTaskTrigger
from airflow_provider_luma.waiting import poller as poller_module
from airflow_provider_luma.waiting.poller import MAX_CALLS
from tests.support.patience import PATIENCE

INTERVAL = 0.3
Connect = Callable[..., None]
Report = dict[str, Any]


@pytest.fixture
def dialect() -> str:
    return "bare"


class Metrics:
    """What the pollers send to Airflow's metrics."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.gauges: defaultdict[str, list[float]] = defaultdict(list)

    def incr(self, name: str, count: int, tags: Any) -> None:
        self.counts[name] += count

    def gauge(self, name: str, value: float, tags: Any) -> None:
        self.gauges[name].append(value)

    def timing(self, name: str, value: Any, tags: Any) -> None:
        pass


@pytest.fixture
def metrics(monkeypatch: pytest.MonkeyPatch) -> Metrics:
    metrics = Metrics()
    monkeypatch.setattr(trigger_module, "airflow_stats", lambda: metrics)
    return metrics


def trigger(ids: Sequence[str] | str, *, timeout: float = 60, **arguments: Any) -> LumaTaskTrigger:
    return LumaTaskTrigger(
        luma_task_ids=ids,
        time_limit={"seconds": timeout, "deadline": time.time() + timeout},
        **{"poll_interval": INTERVAL, **arguments},
    )


async def report(trigger: LumaTaskTrigger) -> Report:
    """Run a trigger to its end."""
    events = [event async for event in trigger.run()]
    assert len(events) == 1
    assert type(events[0]) is TriggerEvent
    payload = events[0].payload
    assert isinstance(payload, dict)
    return payload


def reports(*triggers: LumaTaskTrigger) -> list[Report]:
    """Run triggers to their ends, as a triggerer does."""

    async def main() -> list[Report]:
        return await asyncio.gather(*map(report, triggers))

    return asyncio.run(main())


def verdicts(reports: Iterable[Report]) -> list[str]:
    return [report["verdict"] for report in reports]


def poll_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("luma-poll")]


def connections_to(port: int) -> list[Any]:
    return [
        connection
        for connection in psutil.Process(os.getpid()).net_connections("tcp")
        if connection.raddr and connection.raddr.port == port and connection.status == "ESTABLISHED"
    ]


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


class TestSharing:
    @pytest.mark.parametrize("dialect", ["bare", "envelope"])
    def test_fifty_waiters_for_the_same_id_make_one_call_a_round(
        self, connected: LumaSandbox, metrics: Metrics
    ) -> None:
        shared = connected.add_task(completes_after=0.7)
        own = [connected.add_task(completes_after=0) for _ in range(50)]

        done = reports(*(trigger([shared, task_id]) for task_id in own))

        assert verdicts(done) == ["done"] * 50
        # One poller serves them all, and makes no second call in any round.
        assert metrics.gauges["luma.poller.waiters"][0] == 50
        assert 0 < connected.count("batch") <= metrics.counts["luma.poller.rounds"]
        assert all(count == 1 for call in connected.calls for count in Counter(call.ids).values())

    def test_settled_ids_are_asked_for_no_more(self, connected: LumaSandbox) -> None:
        early = connected.add_task(completes_after=0)
        late = connected.add_task(state="completed", without_video_for=1)

        reports(trigger([early, late]))

        asked = Counter(task_id for call in connected.calls for task_id in call.ids)
        assert asked[early] == 1
        assert asked[late] > 1

    def test_a_waiter_of_a_hundred_thousand_ids_is_served_in_batches_and_others_meanwhile(
        self, connected: LumaSandbox, connect: Connect
    ) -> None:
        connect(connected.base_url, connected.api_key, batch_size=1000)
        ids = [f"unknown{n}" for n in range(100_000)]
        few = connected.add_task(completes_after=0)

        many, one = reports(trigger(ids, max_failed=None, missing_polls=1), trigger(few))

        assert (many["verdict"], one["verdict"]) == ("done", "done")
        assert many["failed"].keys() == set(ids)
        assert connected.count("batch") == 101
        [position] = [n for n, call in enumerate(connected.calls) if few in call.ids]
        # It is sent first; on a busy machine some others overtake its thread.
        assert position < 101 / 4


class TestBadInput:
    @pytest.mark.parametrize(
        "fault",
        [faults.bad_request("this id is bad"), faults.payload_too_large(), faults.task_not_exist()],
        ids=lambda fault: fault.name,
    )
    def test_an_id_that_turns_its_call_into_a_refusal_fails_its_owner_alone(
        self, connected: LumaSandbox, fault: faults.Fault
    ) -> None:
        good = [connected.add_task(completes_after=0) for _ in range(40)]
        connected.fail_when("batch", fault, ids=["bad"])

        bad, *others = reports(trigger("bad", missing_polls=2), *map(trigger, good))

        assert bad["verdict"] == "failed"
        assert bad["failed"].keys() == {"bad"}
        assert verdicts(others) == ["done"] * 40

    def test_an_id_that_makes_the_relay_fail_is_found_and_its_owner_gives_up(
        self, connected: LumaSandbox, connect: Connect
    ) -> None:
        connect(connected.base_url, connected.api_key, max_poll_failures=8)
        good = [connected.add_task(completes_after=0) for _ in range(40)]
        connected.fail_when("batch", faults.do_request_failed(), ids=["bad"])

        bad, *others = reports(trigger("bad"), *map(trigger, good))

        assert bad["verdict"] == "unreachable"
        assert "8 times in a row" in bad["message"]
        assert verdicts(others) == ["done"] * 40

    def test_while_an_id_makes_the_relay_hang_the_others_are_served(
        self, connected: LumaSandbox, connect: Connect
    ) -> None:
        connect(connected.base_url, connected.api_key, read_timeout=1, batch_size=10, max_poll_failures=4)
        good = [connected.add_task(completes_after=4) for _ in range(40)]
        connected.fail_when("batch", faults.hang(), ids=["bad"])

        bad, *others = reports(trigger("bad"), *map(trigger, good))

        assert bad["verdict"] == "unreachable"
        assert "didn't answer in time" in bad["message"]
        assert verdicts(others) == ["done"] * 40
        hanging = [call.monotonic for call in connected.calls if "bad" in call.ids]
        meanwhile = [
            sum("bad" not in call.ids and begin < call.monotonic < begin + 1 for call in connected.calls)
            for begin in hanging
        ]
        assert max(meanwhile) >= 4

    def test_tasks_that_were_not_polled_change_nothing(self, connected: LumaSandbox) -> None:
        connected.add_task("stranger", fails_with="not yours", unasked=True)
        done = connected.add_task(completes_after=0)

        [only] = reports(trigger(done))

        assert only["verdict"] == "done"
        assert "stranger" not in str(only)

    @pytest.mark.parametrize("states", [("completed", "processing"), ("processing", "completed")])
    def test_of_a_task_that_is_reported_twice_the_finished_state_counts(
        self, connected: LumaSandbox, states: tuple[str, str]
    ) -> None:
        task_id = connected.add_task(state=states[0], answered_twice_as=states[1])

        assert verdicts(reports(trigger(task_id))) == ["done"]

    def test_a_task_that_goes_back_to_processing_stays_completed(self, connected: LumaSandbox) -> None:
        fickle = connected.add_task(states=[(0, "completed"), (0.5, "processing")])
        late = connected.add_task(completes_after=1)

        [only] = reports(trigger([fickle, late]))

        assert only["verdict"] == "done"
        asked = [call.ids for call in connected.calls]
        assert fickle in asked[0]
        assert asked[1:] == [(late,)] * len(asked[1:])

    def test_a_malformed_task_fails_its_owner_alone(self, connected: LumaSandbox) -> None:
        broken = connected.add_task(malformed=True)
        good = connected.add_task(completes_after=0)

        bad, other = reports(trigger(broken, missing_polls=2), trigger(good))

        assert (bad["verdict"], other["verdict"]) == ("failed", "done")

    def test_an_empty_list_is_done_at_once_without_a_call(self, connected: LumaSandbox) -> None:
        assert verdicts(reports(trigger([], poll_interval=3600))) == ["done"]
        assert connected.count("batch") == 0

    def test_ids_of_no_known_form_fail_their_owner_alone(self, connected: LumaSandbox) -> None:
        good = connected.add_task(completes_after=0)

        bad, other = reports(trigger("['../x']"), trigger(good))

        assert bad["verdict"] == "refused"
        assert "'../x'" in bad["message"]
        assert other["verdict"] == "done"


class TestMetrics:
    def test_the_calls_metric_is_the_number_of_http_calls(
        self, connected: LumaSandbox, metrics: Metrics
    ) -> None:
        good = [connected.add_task(completes_after=0) for _ in range(60)]
        connected.fail_when("batch", faults.task_not_exist(), ids=["gone"])
        connected.fail_when("batch", faults.bad_request("this id is bad"), ids=["bad"])
        connected.fail_next("batch", faults.bad_gateway())

        reports(*map(trigger, ["gone", "bad", *good]))

        assert metrics.counts["luma.poller.calls"] == connected.count("batch")


class TestAfterAPollThatWorked:
    @pytest.mark.parametrize(
        "fault",
        [
            faults.unauthorized(),
            faults.group_denied(),
            faults.key_quota_exhausted(),
            faults.bad_request("no"),
        ],
        ids=lambda fault: fault.name,
    )
    def test_one_refusal_ends_none_of_fifty_waiters(
        self, connected: LumaSandbox, fault: faults.Fault
    ) -> None:
        ids = [connected.add_task(state="completed", without_video_for=2) for _ in range(50)]
        connected.fail_next("batch", fault, skip=1)

        assert verdicts(reports(*map(trigger, ids))) == ["done"] * 50


class TestConnection:
    def test_a_wrong_key_fails_every_wait_with_one_clear_error(
        self, connected: LumaSandbox, connect: Connect
    ) -> None:
        connect(connected.base_url, "wrong-key")

        failed = reports(trigger("t1"), trigger("t2"), trigger("t3", poll_interval=3600))

        assert verdicts(failed) == ["refused"] * 3
        assert all("refuses the API key" in report["message"] for report in failed)
        assert "wrong-key" not in str(failed)
        assert connected.count("batch") == 1

    def test_an_unusable_connection_fails_every_wait_and_names_the_field(
        self, connected: LumaSandbox, connect: Connect
    ) -> None:
        connect(connected.base_url, connected.api_key, batch_size="many")

        failed = reports(trigger("t1"), trigger("t2"))

        assert verdicts(failed) == ["refused"] * 2
        assert all("batch_size" in report["message"] for report in failed)

    def test_a_connection_that_does_not_come_back_is_named_in_every_report(
        self, connected: LumaSandbox
    ) -> None:
        failed = reports(*(trigger(f"t{n}", luma_conn_id="no_such", timeout=1) for n in range(2)))

        assert verdicts(failed) == ["timed_out"] * 2
        assert all("no_such" in report["message"] for report in failed)


class TestCancellation:
    @pytest.mark.parametrize("fault", [None, faults.latency(1), faults.hang()], ids=["idle", "slow", "hang"])
    def test_no_task_thread_socket_or_entry_is_left(
        self, connected: LumaSandbox, connect: Connect, fault: faults.Fault | None
    ) -> None:
        connect(connected.base_url, connected.api_key, read_timeout=2, batch_size=1)
        ids = [connected.add_task(completes_after=999) for _ in range(20)]
        if fault is not None:
            connected.fail_when("batch", fault)

        async def main() -> None:
            waits = [asyncio.create_task(report(trigger(task_id))) for task_id in ids]
            await until(lambda: connected.count("batch") >= MAX_CALLS)
            for wait in waits:
                wait.cancel()
            await asyncio.wait(waits)
            assert all(wait.cancelled() for wait in waits)
            await until(lambda: asyncio.all_tasks() == {asyncio.current_task()})
            assert not poller_module._pollers.get(asyncio.get_running_loop())
            await until(lambda: not poll_threads())
            await until(lambda: not connections_to(connected.port))

        asyncio.run(main())

    def test_a_poller_that_ended_comes_back(self, connected: LumaSandbox) -> None:
        task_id = connected.add_task(completes_after=0)

        async def main() -> list[Report]:
            return [await report(trigger(task_id)) for _ in range(3)]

        assert verdicts(asyncio.run(main())) == ["done"] * 3
        assert connected.count("batch") == 3
