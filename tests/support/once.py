# SPDX-License-Identifier: Apache-2.0
"""What is dear to make and the same for all workers of a test run is made by the first that needs it."""

from __future__ import annotations

import fcntl
from collections.abc import Callable
from pathlib import Path

import pytest


def once_per_run(
    tmp_path_factory: pytest.TempPathFactory, worker_id: str, name: str, make: Callable[[Path], object]
) -> Path:
    """
    Return the file of this name, which ``make`` has written in this worker or in another.

    :param worker_id: the fixture of pytest-xdist
    """
    folder = tmp_path_factory.getbasetemp()
    if worker_id != "master":
        folder = folder.parent
    file = folder / name
    with (folder / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not file.exists():
            unfinished = folder / f"{name}.unfinished"
            make(unfinished)
            unfinished.rename(file)
    return file
