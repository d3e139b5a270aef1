# SPDX-License-Identifier: Apache-2.0
"""The relay behind a shared poll: its client, and when to read the Airflow connection again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

from airflow_provider_luma.client.api import DEFAULT_BATCH_SIZE, LumaClient
from airflow_provider_luma.client.settings import DEFAULT_MAX_POLL_FAILURES, RelaySettings
from airflow_provider_luma.exceptions import LumaAuthError

log = logging.getLogger(__name__)

T = TypeVar("T")

LoadSettings = Callable[[], Awaitable[RelaySettings]]
"""Reads the Airflow connection."""


class Meter(Protocol):
    """Where measurements go."""

    def incr(self, name: str, count: int = 1) -> None:
        """Add to a counter."""

    def gauge(self, name: str, value: float) -> None:
        """Set a value."""

    def timing(self, name: str, seconds: float) -> None:
        """Record a duration."""


class PolledRelay:
    """
    Make the calls of a shared poll, in threads.

    ``batch_size`` and ``max_poll_failures`` are those of the connection, once it has been read. ``proven``
    says whether a call has worked with the settings as they are. From then on a refusal of the key is waited
    out: caches of relays refuse good ones at times.

    :param load_settings: Reads the connection; called before the first call, and again when the relay refuses
        the key, which may have been rotated.
    :param max_calls: How many calls can be in flight.
    """

    def __init__(self, load_settings: LoadSettings, *, meter: Meter, max_calls: int) -> None:
        self.proven = False
        self._load_settings = load_settings
        self._meter = meter
        self._threads = ThreadPoolExecutor(max_calls, "luma-poll")
        self._opening = asyncio.Lock()
        self.batch_size = DEFAULT_BATCH_SIZE
        self.max_poll_failures = DEFAULT_MAX_POLL_FAILURES
        self._settings: RelaySettings | None = None
        self._client: LumaClient | None = None
        self._read_at = 0.0

    def presume_proven(self) -> None:
        """Trust a poll in a worker to prove the connection, unless it has been read here since."""
        self.proven = self.proven or self._client is None

    async def call(self, request: Callable[[LumaClient], T]) -> T:
        """Make one HTTP call; two when the relay refuses the key and the connection has a new one."""
        started = asyncio.get_running_loop().time()
        client = await self.open()
        try:
            return await self._timed(client, request)
        except LumaAuthError:
            renewed = await self.open(since=started)
            if renewed is client:
                raise
            log.info("The relay refused the API key; the connection has changed, so trying its new key.")
            return await self._timed(renewed, request)

    async def _timed(self, client: LumaClient, request: Callable[[LumaClient], T]) -> T:
        loop = asyncio.get_running_loop()
        started = loop.time()
        self._meter.incr("luma.poller.calls")
        try:
            return await loop.run_in_executor(self._threads, request, client)
        finally:
            self._meter.timing("luma.poller.call_duration", loop.time() - started)

    async def open(self, *, since: float = 0.0) -> LumaClient:
        """Return the client; read the connection again unless it was read after *since*."""
        async with self._opening:
            if self._client is None or self._read_at < since:
                settings = await self._load_settings()
                self._read_at = asyncio.get_running_loop().time()
                if self._client is None or settings != self._settings:
                    return await self._use(settings)
            return self._client

    async def _use(self, settings: RelaySettings) -> LumaClient:
        # The next round is the retry; retries within a call would hold its thread and delay the calls behind.
        loop = asyncio.get_running_loop()
        client = await loop.run_in_executor(self._threads, lambda: settings.client(max_retries=0))
        if self._client is not None:
            self._client.close()
            self.proven = False
        self._client, self._settings = client, settings
        self.batch_size, self.max_poll_failures = settings.batch_size, settings.max_poll_failures
        return client

    def close(self) -> None:
        """Make no further call, and close the client."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        if self._client is not None:
            self._client.close()
