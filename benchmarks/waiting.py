# SPDX-License-Identifier: Apache-2.0
"""
What waiting costs: a thousand deferred task instances with ten Luma tasks each, in seven designs.

    python -m benchmarks.waiting [--waiters 1000] [--ids 10] [--interval 5] [--repeat 1]

Each design runs in a process of its own, against a sandbox in a process of its own, over HTTP:

ours
    ``LumaTaskTrigger`` as it is: all triggers of the process share their polls.
ours, quiet
    The same without the line that each trigger logs when something has changed.
ours, unshared
    The same trigger, but each polls for itself, with a client of its own and ``asyncio.to_thread``: the usual
    design of a deferrable operator.
HttpTrigger per id
    A trigger per id as a user of the HTTP provider would write it: ``HttpTrigger``, polled in a loop until
    the task's state is final. (The provider's own ``HttpEventTrigger`` loops too, but reloads the module of
    its check at every poll, which costs far more.)
plain loop, our client
    The floor: one asyncio loop without Airflow that polls all open ids, a hundred a call, four calls at a
    time, by ``LumaClient`` in threads.
plain loop, requests
    The same with a bare ``requests`` session and json, as one would write it by hand.
plain loop, aiohttp
    The same with aiohttp and json: no retries, no error texts, no checks, no threads.

Triggers start within the first interval, fifty at a time, as many as a triggerer takes over in one of its
loops (``[triggerer] max_trigger_to_select_per_loop``). Tasks complete evenly between the fourth and the ninth
interval, in random order. Imports of the first use are done before.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import math
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any
from unittest.mock import patch

import psutil

BATCH_SIZE = 100
CONCURRENCY = 4
FINAL = frozenset({"completed", "failed"})
PROBE_SECONDS = 0.025
TAKEN_OVER = 50


def percentile(values: list[float], percent: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, math.ceil(len(ordered) * percent / 100) - 1)] if ordered else 0.0


# In the process of a design


class Race:
    """The waits of one design: for which ids, at which relay, and when each ended."""

    def __init__(self, order: dict[str, Any]) -> None:
        self.base_url: str = order["base_url"]
        self.api_key: str = order["api_key"]
        self.interval: float = order["interval"]
        self.waits: list[list[str]] = order["waits"]
        self.ended: dict[int, float] = {}
        self.rounds: list[tuple[int, int]] = []

    def pause_before(self, number: int) -> float:
        return number // TAKEN_OVER * TAKEN_OVER / len(self.waits) * self.interval

    def end(self, number: int) -> None:
        self.ended[number] = time.time()


async def ours(race: Race) -> None:
    from airflow_provider_luma.triggers.luma import LumaTaskTrigger
    from airflow_provider_luma.waiting import poller
    from airflow_provider_luma.waiting.schedule import Schedule

    class Counted(Schedule):
        def begin_round(self, now: float) -> Any:
            calls = super().begin_round(now)
            race.rounds.append((sum(len(call.ids) for call in calls), len(calls)))
            return calls

    limit = {"seconds": 3600, "deadline": time.time() + 3600}

    async def wait(number: int, ids: list[str]) -> None:
        await asyncio.sleep(race.pause_before(number))
        trigger = LumaTaskTrigger(luma_task_ids=ids, poll_interval=race.interval, time_limit=limit)
        async for event in trigger.run():
            assert event.payload["verdict"] == "done"
            race.end(number)

    with patch.object(poller, "Schedule", Counted):
        await asyncio.gather(*(wait(number, ids) for number, ids in enumerate(race.waits)))


async def unshared(race: Race) -> None:
    from airflow_provider_luma.triggers import luma
    from airflow_provider_luma.waiting.calls import PollResult

    async def follow_alone(
        connection: str, load_settings: Any, tracker: Any, *, interval: float, **others: Any
    ) -> Any:
        client = (await load_settings()).client(max_retries=0)
        while (verdict := tracker.verdict(timed_out=False)) == "waiting":
            await asyncio.sleep(interval)
            ids = tracker.progress.open_ids
            tracker.on_answer(PollResult(await asyncio.to_thread(client.get_tasks, ids), ids, None))
        return verdict

    with patch.object(luma, "follow_shared", follow_alone):
        await ours(race)


async def http_trigger(race: Race) -> None:
    from airflow.providers.http.triggers.http import HttpTrigger
    from airflow.triggers.base import TriggerEvent

    class PollUntilFinal(HttpTrigger):
        async def run(self) -> AsyncIterator[TriggerEvent]:
            hook = self._get_async_hook()
            while True:
                response = await self._get_response(hook)  # type: ignore[no-untyped-call]
                if response.json()["state"] in FINAL:
                    yield TriggerEvent(response.json())
                    return
                await asyncio.sleep(race.interval)

    open_ids = [len(ids) for ids in race.waits]

    async def wait(number: int, task_id: str) -> None:
        await asyncio.sleep(race.pause_before(number))
        trigger = PollUntilFinal(
            http_conn_id="relay",
            method="GET",
            endpoint=f"luma/generations/{task_id}",
            headers={"Authorization": f"Bearer {race.api_key}"},
        )
        async for _ in trigger.run():
            open_ids[number] -= 1
            if not open_ids[number]:
                race.end(number)

    await asyncio.gather(*(wait(number, task_id) for number, ids in enumerate(race.waits) for task_id in ids))


async def plain(race: Race, ask: Callable[[list[str]], Awaitable[dict[str, str]]]) -> None:
    """Poll all open ids in batches; ``ask`` returns the states of one batch."""
    open_ids = {task_id: number for number, ids in enumerate(race.waits) for task_id in ids}
    left = [len(ids) for ids in race.waits]
    places = asyncio.Semaphore(CONCURRENCY)

    async def poll(ids: list[str]) -> None:
        async with places:
            states = await ask(ids)
        for task_id, state in states.items():
            if state in FINAL:
                number = open_ids.pop(task_id)
                left[number] -= 1
                if not left[number]:
                    race.end(number)

    due = asyncio.get_running_loop().time()
    while open_ids:
        due += race.interval
        await asyncio.sleep(due - asyncio.get_running_loop().time())
        ids = list(open_ids)
        batches = [ids[start : start + BATCH_SIZE] for start in range(0, len(ids), BATCH_SIZE)]
        race.rounds.append((len(ids), len(batches)))
        await asyncio.gather(*map(poll, batches))


async def plain_client(race: Race) -> None:
    from airflow_provider_luma.client import LumaClient

    with LumaClient(race.base_url, race.api_key, max_retries=0) as client:

        async def ask(ids: list[str]) -> dict[str, str]:
            tasks = await asyncio.to_thread(client.get_tasks, ids)
            return {task_id: task.state.value for task_id, task in tasks.items()}

        await plain(race, ask)


async def plain_requests(race: Race) -> None:
    import requests

    with requests.Session() as session:
        session.headers["Authorization"] = f"Bearer {race.api_key}"

        def post(ids: list[str]) -> dict[str, str]:
            response = session.post(f"{race.base_url}/luma/tasks", json={"ids": ids}, timeout=30)
            response.raise_for_status()
            return {task["id"]: task["state"] for task in response.json()}

        async def ask(ids: list[str]) -> dict[str, str]:
            return await asyncio.to_thread(post, ids)

        await plain(race, ask)


async def plain_aiohttp(race: Race) -> None:
    import aiohttp

    headers = {"Authorization": f"Bearer {race.api_key}"}
    async with aiohttp.ClientSession(headers=headers) as session:

        async def ask(ids: list[str]) -> dict[str, str]:
            async with session.post(f"{race.base_url}/luma/tasks", json={"ids": ids}) as answer:
                return {task["id"]: task["state"] for task in await answer.json()}

        await plain(race, ask)


DESIGNS: dict[str, tuple[str, Callable[[Race], Coroutine[Any, Any, None]]]] = {
    "ours": ("ours", ours),
    "quiet": ("ours, quiet", ours),
    "unshared": ("ours, unshared", unshared),
    "http": ("HttpTrigger per id", http_trigger),
    "plain": ("plain loop, our client", plain_client),
    "requests": ("plain loop, requests", plain_requests),
    "aiohttp": ("plain loop, aiohttp", plain_aiohttp),
}


def cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


async def measure(design: str, race: Race) -> dict[str, Any]:
    delays: list[float] = []
    memory: list[int] = []
    process, loop = psutil.Process(), asyncio.get_running_loop()

    async def probe() -> None:
        while True:
            before = loop.time()
            await asyncio.sleep(PROBE_SECONDS)
            delays.append(loop.time() - before - PROBE_SECONDS)
            if len(delays) % 10 == 0:
                memory.append(process.memory_info().rss)

    gc.collect()
    memory_before, cpu_before, begin = process.memory_info().rss, cpu_seconds(), time.time()
    probing = asyncio.create_task(probe())
    await DESIGNS[design][1](race)
    wall, cpu = time.time() - begin, cpu_seconds() - cpu_before
    probing.cancel()
    return {
        "ended": [race.ended[number] for number in range(len(race.waits))],
        "rounds": race.rounds,
        "wall": wall,
        "cpu": cpu,
        "memory": max(memory) - memory_before,
        "delay_p99": percentile(delays, 99),
        "delay_max": max(delays),
    }


def run_design(design: str) -> None:
    """Import, report readiness, read the order from stdin, and print the result."""
    if design not in ("plain", "requests", "aiohttp"):
        from airflow.sdk.log import configure_logging

        # As in a triggerer, but written to nowhere.
        log = Path(os.devnull).open("wb", buffering=0)  # noqa: SIM115
        level = "WARNING" if design == "quiet" else "INFO"
        configure_logging(json_output=True, log_level=level, output=log, sending_to_supervisor=True)
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    order = json.loads(sys.stdin.readline())
    os.environ["AIRFLOW_CONN_LUMA_DEFAULT"] = order["airflow_connection"]
    os.environ["AIRFLOW_CONN_RELAY"] = json.dumps({"conn_type": "http", "host": order["base_url"]})
    asyncio.run(DESIGNS[design][1](Race(order)))
    print("ready", flush=True)
    race = Race(order | json.loads(sys.stdin.readline()))
    print(json.dumps(asyncio.run(measure(design, race))), flush=True)


# In the parent


def compete(design: str, waiters: int, ids_each: int, interval: float) -> dict[str, Any]:
    """Run one design and return its row of figures."""
    from airflow_provider_luma.sandbox import SandboxProcess, TaskScript

    rng = random.Random(1)  # noqa: S311
    count = waiters * ids_each
    completions = [interval * (4 + 5 * n / count) for n in range(count)]
    rng.shuffle(completions)
    with tempfile.TemporaryDirectory() as home, SandboxProcess(max_records=1) as sandbox:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_")}
        environment |= {"AIRFLOW_HOME": home, "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
        with subprocess.Popen(
            [sys.executable, "-m", "benchmarks.waiting", "--design", design],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            cwd=Path(__file__).parents[1],
            text=True,
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            # One wait before the race: a triggerer has imported and cached already what the first use needs.
            order = {
                "base_url": sandbox.base_url,
                "api_key": sandbox.api_key,
                "airflow_connection": sandbox.airflow_connection,
                "interval": 0.1,
                "waits": [[sandbox.add_task(completes_after=0.3)]],
            }
            print(json.dumps(order), file=process.stdin, flush=True)
            assert process.stdout.readline() == "ready\n"
            sandbox.reset()
            ids = sandbox.add_tasks(TaskScript(completes_after=after) for after in completions)
            waits = [ids[start : start + ids_each] for start in range(0, count, ids_each)]
            print(json.dumps({"interval": interval, "waits": waits}), file=process.stdin, flush=True)
            # By then every design polls, and no task is completed for another interval.
            time.sleep(interval * 2.75)
            before = sandbox.counts
            time.sleep(interval)
            after = sandbox.counts
            result: dict[str, Any] = json.loads(process.stdout.readline())
        counts = sandbox.counts
        finished = {times.id: times.finished_at or math.inf for times in sandbox.times()}
    detection = [
        ended - max(finished[task_id] for task_id in wait)
        for wait, ended in zip(waits, result["ended"], strict=True)
    ]
    excess = [made - math.ceil(ids / BATCH_SIZE) for ids, made in result["rounds"]]
    return result | {
        "calls": counts["batch"] + counts["single"],
        "calls_per_interval": sum(after[name] - before[name] for name in ("batch", "single")),
        "excess": max(excess) if excess else None,
        "memory_per_id": result["memory"] / count,
        "detection_p50": statistics.median(detection),
        "detection_p99": percentile(detection, 99),
    }


ROWS: list[tuple[str, Callable[[dict[str, Any]], str]]] = [
    ("HTTP calls per interval, all ids open", lambda r: f"{r['calls_per_interval']:,}"),
    ("most calls above ⌈ids / 100⌉ in a round", lambda r: "–" if r["excess"] is None else f"{r['excess']}"),
    ("HTTP calls in all", lambda r: f"{r['calls']:,}"),
    ("CPU", lambda r: f"{r['cpu']:.2f} s"),
    ("peak memory above the start", lambda r: f"{r['memory'] / 1e6:.1f} MB"),
    ("… per id", lambda r: f"{r['memory_per_id'] / 1000:.2f} kB"),
    ("event-loop delay p99", lambda r: f"{r['delay_p99'] * 1000:.1f} ms"),
    ("event-loop delay, worst", lambda r: f"{r['delay_max'] * 1000:.0f} ms"),
    ("detection delay p50", lambda r: f"{r['detection_p50']:.2f} s"),
    ("detection delay p99", lambda r: f"{r['detection_p99']:.2f} s"),
    ("until the last task was seen", lambda r: f"{r['wall']:.1f} s"),
]


def table(results: dict[str, dict[str, Any]]) -> str:
    lines = ["| | " + " | ".join(DESIGNS[design][0] for design in results) + " |"]
    lines.append("|---|" + "---:|" * len(results))
    for name, show in ROWS:
        lines.append(f"| {name} | " + " | ".join(show(result) for result in results.values()) + " |")
    lines.append("")
    for ours in ("ours", "quiet"):
        ratios = [
            f"{results[ours]['cpu'] / result['cpu']:.2f} of {DESIGNS[design][0]}"
            for design, result in results.items()
            if ours in results and design not in ("ours", "quiet")
        ]
        lines += [f"CPU of {DESIGNS[ours][0]}: {'; '.join(ratios)}"] if ratios else []
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--waiters", type=int, default=1000)
    parser.add_argument("--ids", type=int, default=10, help="of each waiter")
    parser.add_argument("--interval", type=float, default=5.0, help="seconds between polls")
    parser.add_argument("--repeat", type=int, default=1, help="runs; each prints its table")
    parser.add_argument("--designs", nargs="+", choices=DESIGNS, default=list(DESIGNS))
    parser.add_argument("--design", choices=DESIGNS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.design:
        run_design(arguments.design)
        return
    for _ in range(arguments.repeat):
        results = {}
        for design in arguments.designs:
            results[design] = compete(design, arguments.waiters, arguments.ids, arguments.interval)
            print(f"{DESIGNS[design][0]}: done", file=sys.stderr)
        print(table(results) + "\n", flush=True)


if __name__ == "__main__":
    main()
