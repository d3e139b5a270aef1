# SPDX-License-Identifier: Apache-2.0
"""``status`` over real HTTP."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import suppress

from airflow_provider_luma.cli.definition import Exit
from airflow_provider_luma.sandbox import LumaSandbox, faults
from tests.integration.cli.conftest import PROMPT, Luma
from tests.support.patience import PATIENCE


class TestStatus:
    def test_it_shows_a_row_per_id_and_a_summary(self, luma: Luma, sandbox: LumaSandbox) -> None:
        done = sandbox.add_task(state="completed", prompt=PROMPT)
        in_flight = sandbox.add_task(completes_after=60, prompt="[red]fox[/red] \x1b[31m")

        code, out, _ = luma("status", done, in_flight)

        assert code == Exit.OK
        first, second = (next(line for line in out.splitlines() if id_ in line) for id_ in (done, in_flight))
        assert ("completed" in first, "640x352" in first, PROMPT in first) == (True, True, True)
        assert "[red]fox[/red] [31m" in second
        assert "1/2 completed" in out
        assert sandbox.count("batch") == 1

    def test_failed_and_unknown_ids_are_shown_with_their_reasons(
        self, luma: Luma, sandbox: LumaSandbox
    ) -> None:
        failed = sandbox.add_task(state="failed", fails_with="the sky fell down")

        code, out, _ = luma("status", failed, "unknown-id")

        assert code == Exit.TASKS_FAILED
        assert "the sky fell down" in out
        assert "not found" in out

    def test_json_keeps_the_given_order(self, luma: Luma, sandbox: LumaSandbox) -> None:
        done = sandbox.add_task(state="completed", prompt=PROMPT)

        result = luma("status", "unknown-id", done, "--json")

        unknown, known = result.json
        assert (unknown["id"], unknown["state"], unknown["video_url"]) == (
            "unknown-id",
            "not found",
            None,
        )
        assert (known["id"], known["state"], known["prompt"]) == (done, "completed", PROMPT)
        assert known["video_url"].startswith("http://127.0.0.1")

    def test_watch_ends_with_the_last_terminal_state(self, luma: Luma, sandbox: LumaSandbox) -> None:
        ids = [sandbox.add_task(completes_after=0.2), sandbox.add_task(completes_after=0.4)]

        code, out, err = luma("status", *ids, "--watch", "--interval", "0.1")

        assert code == Exit.OK
        assert "2/2 completed" in out
        assert "2/2 completed" in err

    def test_watch_with_json_prints_one_line_per_change(self, luma: Luma, sandbox: LumaSandbox) -> None:
        task_id = sandbox.add_task(completes_after=0.2)

        code, out, _ = luma("status", task_id, "--watch", "--interval", "0.05", "--json")

        states = [json.loads(line)[0]["state"] for line in out.splitlines()]
        assert code == Exit.OK
        assert len(states) > 1
        assert states[-1] == "completed"
        assert len(states) == len(set(states))

    def test_watch_on_a_terminal_updates_the_table_in_place(self, sandbox: LumaSandbox) -> None:
        task_id = sandbox.add_task(completes_after=3000)
        ours, theirs = os.openpty()
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "airflow_provider_luma",
                "status",
                task_id,
                "--watch",
                "--interval",
                "0.1",
            ],
            stdout=theirs,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "120"},
        )
        os.close(theirs)
        painted = b""
        # On Linux, reading a pseudo-terminal fails once its last writer has closed it.
        with suppress(OSError), os.fdopen(ours, "rb", buffering=0) as terminal:
            while chunk := terminal.read(4096):
                painted += chunk
                if b"0/1 completed" in painted:
                    sandbox.advance(3600)

        assert process.wait(timeout=PATIENCE) == Exit.OK
        assert b"\x1b[2K" in painted
        assert b"1/1 completed" in painted[painted.rindex(b"\x1b[?25h") :]

    def test_watch_survives_a_failed_poll(self, luma: Luma, sandbox: LumaSandbox) -> None:
        task_id = sandbox.add_task(state="completed")
        sandbox.fail_next("batch", faults.answer(200, "<html>sorry</html>"))

        code, out, err = luma("status", task_id, "--watch", "--interval", "0.05")

        assert code == Exit.OK
        assert "Polling the relay failed" in err
        assert "1/1 completed" in out

    def test_watch_stops_when_the_key_is_refused(self, luma: Luma, sandbox: LumaSandbox) -> None:
        sandbox.fail_when("batch", faults.unauthorized())

        assert luma("status", "some-id", "--watch", "--json").code == Exit.ERROR
