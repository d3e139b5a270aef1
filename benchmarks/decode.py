# SPDX-License-Identifier: Apache-2.0
"""
How long it takes to decode a large answer of the relay: ours beside json.loads and pydantic.

    python benchmarks/decode.py [--tasks 10000] [--rounds 15]

All decoders take turns on the same bytes, and their results are compared before anything is timed. The
garbage collector is left on, as it is in Airflow.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import statistics
import time
import uuid
from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Any

import pydantic

from airflow_provider_luma.client import decode_tasks

CDN = "https://storage.cdn-luma.com/dream-machine"
GRID = "em9csKqXYUgqdHVmmqeZLB8YaFpLjVw2bmFTTElBHhMNTzgodD8eVzUeTDorRSkYYEQymV80e1M0ck0ugWVRwKCApWk0hF1BgmVP"


class PydanticMedia(pydantic.BaseModel):
    """The fields of ``Media``."""

    url: str | None = None
    download_url: str | None = None
    width: float | None = None
    height: float | None = None
    duration: float | None = None
    media_type: str | None = None


class PydanticRequest(pydantic.BaseModel):
    """The fields of a request that ``LumaTask`` keeps."""

    prompt: str | None = None
    aspect_ratio: str | None = None


class PydanticTask(pydantic.BaseModel):
    """The same fields as ours, as someone would write them with pydantic."""

    id: str
    state: str
    created_at: datetime | None = None
    failure_reason: str | None = None
    request: PydanticRequest | None = None
    video: PydanticMedia | None = None
    video_raw: PydanticMedia | None = None
    thumbnail: PydanticMedia | None = None
    last_frame: PydanticMedia | None = None


PYDANTIC_TASKS = pydantic.TypeAdapter(list[PydanticTask])


def task(number: int) -> dict[str, Any]:
    """Return a completed task in the shape of the relay's own example, with an id and URLs of its own."""
    task_id = str(uuid.uuid5(uuid.NAMESPACE_URL, str(number)))
    folder = f"{CDN}/{task_id}/606108d9-9daf-4265-84fb-595f18240ac5"
    size = {"height": 752, "width": 1360}
    video = f"{folder}/video{task_id.replace('-', '')}.mp4"
    files = {
        "last_frame": {
            "media_type": "image",
            "palette": None,
            "url": f"{folder}/video_0_last_frame.jpg",
            **size,
        },
        "thumbnail": {
            "media_type": "image",
            "palette": {"grid": GRID},
            "url": f"https://imagedelivery.net/1KomXrSWiTojGGip43n0SQ/{task_id}/public",
            **size,
        },
        "video": {"download_url": video, "url": video, **size},
        "video_raw": {"duration": 5.041667, "media_type": "video", "url": video, **size},
    }
    return {
        "artifact": {"created_at": "0001-01-01T00:00:00Z", **files},
        "created_at": "2024-12-22T13:38:40.139Z",
        "id": task_id,
        "request": {"aspect_ratio": "16:9", "prompt": "cat dance"},
        "state": "completed",
        **files,
    }


ODD_PROMPTS = {
    "an object for a prompt": b"{}",
    "half a surrogate pair": b'"cat \\ud83d"',
    "NaN": b"NaN",
    "invalid UTF-8": b'"cat \xff"',
    "broken JSON": b"0x1f",
}


def answers(count: int) -> dict[str, bytes]:
    """Return the same tasks as a bare array, in the envelope, and with one odd task among them."""
    tasks = [task(number) for number in range(count)]
    rows = [
        {"id": number, "task_id": one["id"], "status": "SUCCESS", "fail_reason": "", "data": one}
        for number, one in enumerate(tasks)
    ]
    bare = json.dumps(tasks).encode()
    return {
        "bare": bare,
        "envelope": json.dumps({"code": "success", "message": "", "data": rows}).encode(),
        "malformed": json.dumps([*tasks[:-1], tasks[-1] | {"state": 5}]).encode(),
        **{name: odd.join(bare.rsplit(b'"cat dance"', 1)) for name, odd in ODD_PROMPTS.items()},
    }


def check(answer: dict[str, bytes], count: int) -> None:
    """All decoders must have done the same work."""
    ours = decode_tasks(answer["bare"])
    assert ours == decode_tasks(answer["envelope"])
    assert [one.problem is None for one in decode_tasks(answer["malformed"])] == [True] * (count - 1) + [
        False
    ]
    for name in ODD_PROMPTS:
        assert [one.video_url for one in decode_tasks(answer[name])] == [one.video_url for one in ours]
    plain = json.loads(answer["bare"])
    theirs = PYDANTIC_TASKS.validate_json(answer["bare"])
    for one, dictionary, model in zip(ours, plain, theirs, strict=True):
        assert one.id == dictionary["id"] == model.id
        assert one.created_at == model.created_at
        assert model.video is not None
        assert one.video_url == dictionary["video"]["download_url"] == model.video.download_url


def measure(contestants: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Let everyone take turns; return CPU seconds."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, decode in contestants.items():
            gc.collect()
            started = time.process_time()
            result = decode()
            seconds[name].append(time.process_time() - started)
            del result
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--tasks", type=int, default=10_000, help="how many tasks the answer holds")
    parser.add_argument("--rounds", type=int, default=15, help="how often each of them runs")
    arguments = parser.parse_args()

    logging.disable(logging.WARNING)  # the malformed task is warned of in every round
    answer = answers(arguments.tasks)
    check(answer, arguments.tasks)
    bare = answer["bare"]
    ours = "ours: decode_tasks"
    seconds = measure(
        {
            ours: lambda: decode_tasks(bare),
            "ours, in the envelope": lambda: decode_tasks(answer["envelope"]),
            "ours, one malformed task": lambda: decode_tasks(answer["malformed"]),
            **{f"ours, one task with {name}": partial(decode_tasks, answer[name]) for name in ODD_PROMPTS},
            "json.loads alone": lambda: json.loads(bare),
            "pydantic: validate_json": lambda: PYDANTIC_TASKS.validate_json(bare),
            "json.loads + pydantic": lambda: PYDANTIC_TASKS.validate_python(json.loads(bare)),
        },
        arguments.rounds,
    )

    print(
        f"{arguments.tasks:,} tasks, {len(bare) / 1e6:.1f} MB as a bare array; CPU time of "
        f"{arguments.rounds} rounds\n"
    )
    print("| decoder | best ms | median ms | median, ours = 1 |")
    print("|---|---:|---:|---:|")
    base = statistics.median(seconds[ours])
    for name, times in seconds.items():
        median = statistics.median(times)
        print(f"| {name} | {min(times) * 1000:.1f} | {median * 1000:.1f} | {median / base:.2f} |")


if __name__ == "__main__":
    main()
