# SPDX-License-Identifier: Apache-2.0
"""What the relay and the media host answer to each call, before any fault touches it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import msgspec
from starlette.requests import Request

from airflow_provider_luma.sandbox import faults, media_host
from airflow_provider_luma.sandbox.delivery import Piece
from airflow_provider_luma.sandbox.dialects import DIALECTS
from airflow_provider_luma.sandbox.faults.fault import JSON, CallName, Fault
from airflow_provider_luma.sandbox.media_host import FileUrls
from airflow_provider_luma.sandbox.relay import UNLIMITED_USD, Refused, Relay
from airflow_provider_luma.sandbox.rules import RecordedCall
from airflow_provider_luma.sandbox.tasks import Snapshot

JSON_HEADERS = (("content-type", JSON),)


class Incoming(NamedTuple):
    """A call, its HTTP request and the fault that will touch its answer."""

    record: RecordedCall
    request: Request
    fault: Fault

    @property
    def task_id(self) -> str:
        """The id in the path."""
        return self.record.ids[0]


class Reply(NamedTuple):
    """An answer; ``length`` is that of the body in bytes."""

    status: int
    headers: tuple[tuple[str, str], ...]
    pieces: Iterable[Piece]
    length: int
    generation: str | None = None


class Call(NamedTuple):
    """One call of an API: its route, its name in the records, and what answers it."""

    method: str
    path: str
    name: CallName
    handler: Callable[[Incoming], Reply]


def json_reply(value: object, status: int = 200, *, generation: str | None = None) -> Reply:
    """Return ``value`` as JSON."""
    raw = msgspec.json.encode(value)
    return Reply(status, JSON_HEADERS, (raw,), len(raw), generation)


def fault_reply(fault: Fault) -> Reply:
    """Return the answer that a fault with a body of its own spells out."""
    body = fault.body or b""
    headers = (("content-type", fault.content_type),)
    return Reply(fault.status or 200, headers, itertools.repeat(body, fault.repeat), len(body) * fault.repeat)


class LumaApi:
    """The relay's calls, in the dialect of the settings."""

    def __init__(self, relay: Relay, urls: FileUrls) -> None:
        self._relay = relay
        self._urls = urls
        self._settings = relay.settings
        self._dialect = DIALECTS[relay.settings.dialect](urls.url, relay.epoch)

    def calls(self) -> Sequence[Call]:
        """Return the calls of this API."""
        luma, billing = f"{self._settings.prefix}/luma", f"{self._settings.prefix}/v1/dashboard/billing"
        return (
            Call("POST", f"{luma}/tasks", "batch", self._batch),
            Call("GET", f"{luma}/generations/{{id}}", "single", self._single),
            Call("POST", f"{luma}/generations", "submit", self._submit),
            Call("POST", f"{luma}/generations/{{id}}/extend", "extend", self._extend),
            Call("GET", f"{luma}/generations/{{id}}/download_video_url", "download_url", self._download_url),
            Call("GET", f"{billing}/subscription", "billing", self._subscription),
            Call("GET", f"{billing}/usage", "billing", self._usage),
        )

    def _batch(self, call: Incoming) -> Reply:
        ids = call.record.body.get("ids") if isinstance(call.record.body, dict) else None
        if not isinstance(ids, list) or not all(isinstance(task_id, str) for task_id in ids):
            raise Refused(faults.bad_request("ids must be an array of task ids", code="invalid_request"))
        return json_reply(self._dialect.tasks(self._relay.query(ids)))

    def _single(self, call: Incoming) -> Reply:
        return json_reply(self._dialect.task(self._relay.query_one(call.task_id)))

    def _submit(self, call: Incoming) -> Reply:
        return self._accepted(self._relay.submit(call.record.body))

    def _extend(self, call: Incoming) -> Reply:
        return self._accepted(self._relay.extend(call.task_id, call.record.body))

    def _accepted(self, task: Snapshot) -> Reply:
        return json_reply(self._dialect.task(task), self._settings.submit_status, generation=task.task.id)

    def _download_url(self, call: Incoming) -> Reply:
        snapshot = self._relay.peek(call.task_id)
        if snapshot is None:
            raise Refused(faults.task_not_exist())
        if not snapshot.has_video:
            raise Refused(faults.bad_request("the task has no video", code="video_not_ready"))
        return json_reply(self._dialect.value({"url": self._urls.url(call.task_id, "video.mp4")}))

    # These two are OpenAI's own routes on every relay, and never enveloped.

    def _usage(self, call: Incoming) -> Reply:
        return json_reply({"object": "list", "total_usage": round(self._relay.spent_usd * 100, 4)})

    def _subscription(self, call: Incoming) -> Reply:
        balance = self._settings.balance_usd
        limit = UNLIMITED_USD if balance is None else balance
        limits = dict.fromkeys(("soft_limit_usd", "hard_limit_usd", "system_hard_limit_usd"), limit)
        subscription = {"object": "billing_subscription", "has_payment_method": True, "access_until": 0}
        return json_reply({**subscription, **limits})


class MediaApi:
    """The files of completed tasks."""

    def __init__(self, relay: Relay, urls: FileUrls) -> None:
        self._relay = relay
        self._urls = urls

    def calls(self) -> Sequence[Call]:
        """Return the calls of the media host."""
        return (Call("GET", "/media/{id}/{name}", "media", self._media),)

    def _media(self, call: Incoming) -> Reply:
        snapshot = self._relay.peek(call.task_id)
        name: Any = call.request.path_params["name"]
        if snapshot is None or not snapshot.has_video or name not in media_host.CONTENT_TYPES:
            raise Refused(faults.media_error(404))
        self._check_url(call.request)
        settings, fault = self._relay.settings, call.fault
        size = snapshot.task.script.video_bytes or settings.video_bytes
        file = media_host.media_file(call.task_id, name, size)
        answer = media_host.media_answer(
            file, call.record.headers, ranges=fault.ranges, etag=fault.etag, total_off=fault.total_off
        )
        pieces = file.slices(answer.start, answer.stop)
        return Reply(answer.status, tuple(answer.headers.items()), pieces, answer.stop - answer.start)

    def _check_url(self, request: Request) -> None:
        refused_with = request.query_params.get("refused")
        if refused_with is not None:
            raise Refused(faults.media_error(int(refused_with)))
        if not self._urls.is_valid(request.url.path, request.url.query, use=request.method == "GET"):
            raise Refused(faults.media_error(self._relay.settings.lapsed_link_status))
