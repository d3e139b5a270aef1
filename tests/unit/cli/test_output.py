# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import logging
import sys

import pytest

from airflow_provider_luma.cli.output import Output, OutputLog, plain
from airflow_provider_luma.exceptions import LumaBusyError, LumaConfigError


class TestPlain:
    def test_what_would_steer_the_terminal_is_replaced(self) -> None:
        assert plain("red \x1b[31m\x07 text\r\nnext").plain == "red �[31m� text�\nnext"

    def test_markup_stays_text(self, capsys: pytest.CaptureFixture[str]) -> None:
        Output(as_json=False).show(plain("[bold]not bold[/bold] 100%"))

        assert capsys.readouterr().out.strip() == "[bold]not bold[/bold] 100%"


class TestOutput:
    def test_messages_go_to_standard_error(self, capsys: pytest.CaptureFixture[str]) -> None:
        output = Output(as_json=False)
        output.say("on the way")
        log = OutputLog(output)
        log.info("%d of %d", 1, 2)
        log.warning("oh: %s", "[no]")

        assert capsys.readouterr() == ("", "on the way\n1 of 2\noh: [no]\n")

    def test_what_others_print_or_log_does_not_get_among_the_results(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        handler = logging.StreamHandler(sys.stdout)
        logging.getLogger().addHandler(handler)
        output = Output(as_json=True)
        try:
            with output.alone_on_stdout():
                sys.stdout.write("a greeting\n")
                logging.getLogger("somebody").warning("a warning")
                output.json({"a": 1})
        finally:
            logging.getLogger().removeHandler(handler)

        captured = capsys.readouterr()
        assert captured.out == '{"a":1}\n'
        assert "a greeting" in captured.err
        assert "a warning" in captured.err
        assert handler.stream is sys.stdout

    def test_an_error_is_told_in_words_alone_to_people(self, capsys: pytest.CaptureFixture[str]) -> None:
        Output(as_json=False).error(LumaConfigError("That is wrong."))

        assert capsys.readouterr() == ("", "That is wrong.\n")

    def test_an_error_is_json_for_machines(self, capsys: pytest.CaptureFixture[str]) -> None:
        error = LumaBusyError("Busy.", status=429, code="busy", request_id="r-1", task_ids=["a"])

        Output(as_json=True).error(error)

        assert json.loads(capsys.readouterr().out) == {
            "error": {
                "type": "LumaBusyError",
                "message": "Busy.",
                "retryable": True,
                "task_ids": ["a"],
                "status": 429,
                "code": "busy",
                "request_id": "r-1",
            }
        }
