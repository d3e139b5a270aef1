# SPDX-License-Identifier: Apache-2.0
"""``wait`` over real HTTP."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from airflow_provider_luma.cli.definition import Exit
from airflow_provider_luma.sandbox import LumaSandbox, faults
from tests.integration.cli.conftest import Luma
from tests.support.patience import PATIENCE


class TestWait:
    def test_it_prints_the_completed_ids_in_the_given_order(self, luma: Luma, sandbox: LumaSandbox) -> None:
        ids = [sandbox.add_task(completes_after=0.3), sandbox.add_task(completes_after=0.1)]

        code, out, err = luma("wait", *ids, "--interval", "0.05")

        assert code == Exit.OK
        assert out.splitlines() == ids
        assert "Luma tasks: 1/2 completed" in err
        assert "Luma tasks: 2/2 completed" in err

    def test_ids_are_read_from_standard_input(self, luma: Luma, sandbox: LumaSandbox) -> None:
        ids = [sandbox.add_task(state="completed") for _ in range(2)]

        assert luma("wait", "-", stdin="\n".join(ids)).out.splitlines() == ids

    def test_a_failed_video_is_named_with_its_reason(self, luma: Luma, sandbox: LumaSandbox) -> None:
        bad = sandbox.add_task(state="failed", fails_with="the sky fell down")

        code, out, err = luma("wait", bad)

        assert code == Exit.TASKS_FAILED
        assert out == ""
        assert f"{bad}: the sky fell down" in err

    def test_as_many_as_max_failed_may_fail(self, luma: Luma, sandbox: LumaSandbox) -> None:
        good, bad = sandbox.add_task(state="completed"), sandbox.add_task(state="failed", fails_with="no")

        for tolerated in ("1", "any"):
            result = luma("wait", good, bad, "--max-failed", tolerated, "--json")

            assert result.code == Exit.OK
            assert result.json == {
                "verdict": "done",
                "summary": "1/2 completed, 1 failed",
                "completed": [good],
                "failed": {bad: "no"},
                "open": [],
            }

    def test_an_unknown_id_counts_as_failed_after_missing_polls(
        self, luma: Luma, sandbox: LumaSandbox
    ) -> None:
        code, _, err = luma("wait", "unknown-id", "--missing-polls", "2", "--interval", "0.01")

        assert code == Exit.TASKS_FAILED
        assert "unknown-id" in err
        assert sandbox.count("batch") == 2

    def test_a_timeout_names_the_open_ids(self, luma: Luma, sandbox: LumaSandbox) -> None:
        task_id = sandbox.add_task(completes_after=60)

        result = luma("wait", task_id, "--timeout", "0.2", "--interval", "0.05", "--json")

        assert result.code == Exit.TIMEOUT
        assert result.json["verdict"] == "timed_out"
        assert result.json["open"] == [task_id]
        assert task_id in result.err

    def test_a_refused_key_ends_it_immediately(self, luma: Luma, sandbox: LumaSandbox) -> None:
        sandbox.fail_when("batch", faults.unauthorized())

        code, _, err = luma("wait", "some-id")

        assert code == Exit.ERROR
        assert "refuses the API key" in err

    @pytest.mark.parametrize("wrong", ["../secrets", "a b"])
    def test_an_invalid_id_is_not_sent(self, luma: Luma, sandbox: LumaSandbox, wrong: str) -> None:
        code, _, err = luma("wait", wrong)

        assert code == Exit.USAGE
        assert repr(wrong) in err
        assert sandbox.calls == []

    def test_ctrl_c_names_the_videos_that_keep_running(self, sandbox: LumaSandbox) -> None:
        task_id = sandbox.add_task(completes_after=3600)
        process = subprocess.Popen(
            [sys.executable, "-m", "airflow_provider_luma", "wait", task_id, "--interval", "0.05"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stderr is not None
        first_line = process.stderr.readline()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE)

        assert "0/1 completed" in first_line
        assert process.returncode == Exit.INTERRUPTED
        assert out == ""
        assert "Interrupted" in err
        assert task_id in err
        assert "Traceback" not in err
