# SPDX-License-Identifier: Apache-2.0
"""Run the suites of submits, polls and downloads through an ordinary proxy."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# A proxy closes a connection that the host resets, and is slow to pass on a huge response.
DIFFERENT = "not huge and not reset-Connection"


@pytest.mark.parametrize(
    "suite",
    [
        "test_client.py::TestReads",
        "test_client.py::TestPayingOnce",
        "test_download.py",
    ],
)
def test_a_suite_passes_through_a_proxy(suite: str) -> None:
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "tests.support.through_proxy",
        "-p",
        "no:cacheprovider",
    ]
    run = subprocess.run(
        [*command, "-n", "0", "-k", DIFFERENT, f"tests/integration/{suite}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-8000:] + run.stderr[-2000:]
