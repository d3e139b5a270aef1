# SPDX-License-Identifier: Apache-2.0
"""``SandboxProcess``: a sandbox in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self, cast

import msgspec

from airflow_provider_luma.sandbox.control import Remote
from airflow_provider_luma.sandbox.settings import Settings
from airflow_provider_luma.sandbox.steering import Sandbox

_PATIENCE = 10.0


class SandboxProcess(Sandbox):
    """
    Run a sandbox in a process of its own, for benchmarks and for clients that are killed.

    It shares no interpreter lock with them. It ends with the ``with`` block, and in any case when this
    process ends.

    :param host: Address to listen on.
    :param port: Port to listen on. 0 takes a free one.
    :param settings: Fields of :class:`~airflow_provider_luma.sandbox.settings.Settings`.
    :raises ValueError: A setting is unknown or its value wrong.
    """

    remote: Remote

    def __init__(self, *, host: str = "127.0.0.1", port: int = 0, **settings: Any) -> None:
        super().__init__(Settings.of(settings), host=host, port=port)

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", __package__, "--host", self.host, "--port", str(self.port)]
        command += ["--settings", msgspec.json.encode(self.settings).decode(), "--until-stdin-closes"]
        package_root = str(Path(__file__).parents[2])
        paths = [package_root, *filter(None, [os.environ.get("PYTHONPATH")])]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        )
        ready = cast("IO[str]", self.process.stdout).readline().split()
        if not ready:
            self._end()
            raise RuntimeError(
                f"The sandbox process ended with {self.process.returncode} before it was ready."
            )
        root_url = ready[-1].removesuffix(self.prefix)
        self.port = int(root_url.rpartition(":")[2])
        self.remote = Remote(self.root_url)
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.remote.close()
        self._end()

    def _end(self) -> None:
        try:
            # Closes the process's stdin, at which it ends.
            self.process.communicate(timeout=_PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()
