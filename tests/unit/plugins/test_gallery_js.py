# SPDX-License-Identifier: Apache-2.0
"""Run the gallery's own unit tests, which are written in its language."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[2] / "js"


@pytest.mark.parametrize("path", sorted(TESTS.glob("*.test.mjs")), ids=lambda path: path.name)
def test_the_gallerys_scripts(path: Path) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.fail(
            "Node.js 20 or newer is missing; install it with `apt-get install nodejs` or from your system."
        )

    finished = subprocess.run([node, "--test", str(path)], capture_output=True, text=True)

    assert finished.returncode == 0, finished.stdout + finished.stderr
