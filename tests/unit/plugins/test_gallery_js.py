# SPDX-License-Identifier: Apache-2.0
"""Run the unit tests of the gallery's scripts, which are written in JavaScript."""

from __future__ import annotations

import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[2] / "js"


@pytest.fixture(scope="module")
def node() -> str:
    """The path of Node.js: from PATH, or from Playwright's package."""
    if found := shutil.which("node"):
        return found
    playwright = find_spec("playwright")
    if playwright is not None and playwright.origin is not None:
        bundled = Path(playwright.origin).parent / "driver" / "node"
        if bundled.is_file():
            return str(bundled)
    pytest.fail("The gallery's tests need Node.js 20 or newer. Install it: sudo apt-get install nodejs")


@pytest.mark.parametrize("path", sorted(TESTS.glob("*.test.mjs")), ids=lambda path: path.name)
def test_the_gallerys_scripts(node: str, path: Path) -> None:
    finished = subprocess.run([node, "--test", str(path)], capture_output=True, text=True)

    assert finished.returncode == 0, finished.stdout + finished.stderr
