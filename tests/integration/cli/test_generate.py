# SPDX-License-Identifier: Apache-2.0
"""``generate`` over real HTTP."""

from __future__ import annotations

import base64
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from airflow_provider_luma.cli.definition import Exit
from airflow_provider_luma.sandbox import LumaSandbox, faults
from tests.integration.cli.conftest import PROMPT, Luma
from tests.support.patience import until


def _interrupt_when(happened: Callable[[], object]) -> None:
    """Send SIGINT to this process once *happened* returns true."""
    until(happened)
    os.kill(os.getpid(), signal.SIGINT)


class TestGenerate:
    def test_it_submits_one_request_and_prints_the_id(self, luma: Luma, sandbox: LumaSandbox) -> None:
        code, out, err = luma("generate", PROMPT)

        (submitted,) = sandbox.generations
        assert code == Exit.OK
        assert out == f"{submitted.id}\n"
        assert submitted.id in err
        assert "it is billed" in err
        assert sandbox.base_url in err
        assert sandbox.calls[-1].body == {"user_prompt": PROMPT}

    def test_every_field_is_sent_as_given(self, luma: Luma, sandbox: LumaSandbox, tmp_path: Path) -> None:
        image = tmp_path / "first.jpg"
        image.write_bytes(b"\xff\xd8\xff picture")

        result = luma(
            "generate",
            PROMPT,
            *("--model-name", "ray-v2", "--duration", "5s", "--resolution", "720p"),
            *("--aspect-ratio", "9:16", "--image-url", f"@{image}"),
            *("--image-end-url", "https://pictures.test/last.jpg"),
            *("--no-loop", "--expand-prompt", "--notify-hook", "https://hooks.test/luma"),
            *("--extra-fields", '{"seed": 7}', "--json"),
        )

        assert result.code == Exit.OK
        assert result.json["id"] == sandbox.generations[0].id
        assert sandbox.calls[-1].body == {
            "user_prompt": PROMPT,
            "model_name": "ray-v2",
            "duration": "5s",
            "resolution": "720p",
            "aspect_ratio": "9:16",
            "image_url": base64.b64encode(image.read_bytes()).decode(),
            "image_end_url": "https://pictures.test/last.jpg",
            "loop": False,
            "expand_prompt": True,
            "notify_hook": "https://hooks.test/luma",
            "seed": 7,
        }

    @pytest.mark.parametrize(
        ("arguments", "expected"),
        [
            (["x"], "prompt"),
            ([PROMPT, "--aspect-ratio", "17:3"], "'17:3'"),
            ([PROMPT, "--loop", "--image-end-url", "https://a.test/b.jpg"], "loop"),
            ([PROMPT, "--extra-fields", "[1]"], "--extra-fields must be a JSON object"),
            ([PROMPT, "--image-url", "@/nowhere/at/all.jpg"], "@/nowhere/at/all.jpg"),
        ],
    )
    def test_an_invalid_request_is_not_sent(
        self, luma: Luma, sandbox: LumaSandbox, arguments: list[str], expected: str
    ) -> None:
        code, _, err = luma("generate", *arguments)

        assert code == Exit.USAGE
        assert expected in err
        assert sandbox.calls == []

    @pytest.mark.parametrize(
        ("fault", "expected"),
        [
            (faults.too_many_requests(), "负载已饱和"),
            (faults.insufficient_user_quota(), "用户额度不足"),
            (faults.group_denied(), "无权访问"),
        ],
    )
    def test_a_refusal_quotes_the_relay_and_is_sent_once(
        self, luma: Luma, sandbox: LumaSandbox, fault: faults.Fault, expected: str
    ) -> None:
        sandbox.fail_when("submit", fault)

        code, out, err = luma("generate", PROMPT)

        assert code == Exit.ERROR
        assert out == ""
        assert expected in err
        assert sandbox.count("submit") == 1

    @pytest.mark.parametrize("fault", [faults.drop(), faults.bad_gateway()])
    def test_an_unknown_outcome_is_an_error_and_nothing_is_submitted_again(
        self, luma: Luma, sandbox: LumaSandbox, fault: faults.Fault
    ) -> None:
        sandbox.fail_when("submit", fault, accepted=True)

        result = luma("generate", PROMPT, "--json")

        assert result.code == Exit.AMBIGUOUS
        assert result.json["error"]["type"] == "LumaAmbiguousSubmitError"
        assert "may be running and billed" in result.err
        assert PROMPT in result.err
        assert len(sandbox.generations) == 1

    @pytest.mark.parametrize("where", ["/dev/full", "closed", "no reader"])
    def test_an_id_that_cannot_be_printed_is_on_standard_error(
        self, sandbox: LumaSandbox, where: str
    ) -> None:
        """Run in a process of its own, because a full output can fail again when Python exits."""
        command = [sys.executable, "-m", "airflow_provider_luma", "generate", PROMPT]
        if where == "closed":
            command = ["sh", "-c", 'exec "$@" >&-', "sh", *command]
        read, stdout = os.pipe()
        os.close(read)
        if where == "/dev/full":
            os.close(stdout)
            stdout = os.open(where, os.O_WRONLY)
        try:
            finished = subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, text=True)
        finally:
            os.close(stdout)

        (submitted,) = sandbox.generations
        assert finished.returncode == Exit.OUTPUT
        assert submitted.id in finished.stderr
        assert "Standard output can't be written" in finished.stderr
        assert "Traceback" not in finished.stderr
        assert "Exception ignored" not in finished.stderr

    def test_with_both_streams_closed_nothing_is_submitted(
        self, luma: Luma, sandbox: LumaSandbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("sys.stdout", None)
        monkeypatch.setattr("sys.stderr", None)

        assert luma("generate", PROMPT).code == Exit.USAGE
        assert sandbox.generations == []

    def test_ctrl_c_during_a_submit_is_an_unknown_outcome(
        self, luma: Luma, sandbox: LumaSandbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("airflow_provider_luma.cli.submit._GRACE", 0.01)
        sandbox.fail_when("submit", faults.hang(), accepted=True)
        threading.Thread(target=_interrupt_when, args=[lambda: sandbox.count("submit")], daemon=True).start()

        code, out, err = luma("generate", PROMPT)

        assert code == Exit.AMBIGUOUS
        assert out == ""
        assert "may be running and billed" in err
        assert PROMPT in err
