# SPDX-License-Identifier: Apache-2.0
"""What a newcomer sees first: ``make demo``."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import psutil

from tests.support.patience import PATIENCE

ROOT = Path(__file__).parents[2]


def test_the_demo_shows_ids_states_and_whole_links_and_leaves_nothing(tmp_path: Path) -> None:
    process = subprocess.run(
        [sys.executable, "-m", "tools.demo", str(tmp_path / "kept")],
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(tmp_path), "COLUMNS": "40"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        start_new_session=True,
    )

    printed = process.stdout
    assert process.returncode == 0, printed + process.stderr
    handed_on = re.findall(
        r"^  ([0-9a-f-]{36})  (\w+)  '(.+)'\n  (http://127\.0\.0\.1:\d+/\S+\.mp4)$", printed, re.MULTILINE
    )
    assert [state for _, state, _, _ in handed_on] == ["completed"] * 3
    assert all(luma_task_id in url for luma_task_id, _, _, url in handed_on)
    assert re.findall(r"^  ([a-z]+)(?:\[(\d)\])?: success$", printed, re.MULTILINE) == [
        ("requests", ""),
        ("submit", ""),
        ("wait", ""),
        ("fetch", ""),
        ("keep", ""),
        ("show", ""),
    ]
    files = re.findall(r"^  (/\S+/kept/\S+)  (\d+) bytes, SHA-256 [0-9a-f]{12}…$", printed, re.MULTILINE)
    assert sorted(Path(path).suffix for path, _ in files) == [".jpg"] * 3 + [".mp4"] * 3
    assert all(Path(path).stat().st_size == int(size) for path, size in files)
    assert "The Dag run: success" in printed
    # Progress was shown meanwhile.
    assert re.search(r"^\[ *\d+ s\] At the relay: 3 processing", printed, re.MULTILINE)
    # Nothing else is left: no file, and no process that it started.
    assert list(tmp_path.iterdir()) == [tmp_path / "kept"]
    commands = [other.info["cmdline"] or [] for other in psutil.process_iter(["cmdline"])]
    assert [command for command in commands if str(tmp_path) in " ".join(command)] == []
