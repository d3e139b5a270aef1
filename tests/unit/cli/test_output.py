# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import errno
import io
import json
import logging
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table

from airflow_provider_luma.cli.output import LumaOutputError, Output, OutputLog, plain
from airflow_provider_luma.exceptions import LumaAmbiguousSubmitError, LumaBusyError, LumaConfigError

HOSTILE = "a\x1b]0;title\x07b\x9b31mc\u202ed\u2066e\u200bf\ud83d"
CONTROLS = "\x1b\x07\x9b\u202e\u2066\u200b\ud83d"


class _Broken(io.StringIO):
    """A stream on a full disk, or without a reader."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def write(self, text: str) -> int:
        raise self.error


class TestPlain:
    def test_characters_that_control_a_terminal_are_replaced(self) -> None:
        assert plain("red \x1b[31m\x07 text\r\nnext").plain == "red �[31m� text�\nnext"

    def test_joiners_in_words_and_emoji_are_kept(self) -> None:
        assert plain("👩\u200d🚀 می\u200cخواهم").plain == "👩\u200d🚀 می\u200cخواهم"

    def test_a_text_of_megabytes_is_shortened(self) -> None:
        assert len(plain("x" * 10_000_000).plain) < 30_000

    def test_markup_is_printed_as_text(self, capsys: pytest.CaptureFixture[str]) -> None:
        Output(as_json=False).show(plain("[bold]not bold[/bold] 100%"))

        assert capsys.readouterr().out.strip() == "[bold]not bold[/bold] 100%"


class TestOutput:
    def test_messages_go_to_standard_error(self, capsys: pytest.CaptureFixture[str]) -> None:
        output = Output(as_json=False)
        output.message("on the way")
        log = OutputLog(output)
        log.info("%d of %d", 1, 2)
        log.warning("oh: %s", "[no]")

        assert capsys.readouterr() == ("", "on the way\n1 of 2\noh: [no]\n")

    def test_what_libraries_print_or_log_stays_out_of_the_results(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        handler = logging.StreamHandler(sys.stdout)
        logging.getLogger().addHandler(handler)
        output = Output(as_json=True)
        try:
            with output.reserve_stdout():
                sys.stdout.write("a greeting\n")
                logging.getLogger("library").warning("a warning")
                output.json({"a": 1})
        finally:
            logging.getLogger().removeHandler(handler)

        captured = capsys.readouterr()
        assert captured.out == '{"a":1}\n'
        assert "a greeting" in captured.err
        assert "a warning" in captured.err
        assert handler.stream is sys.stdout

    def test_without_json_an_error_is_a_message(self, capsys: pytest.CaptureFixture[str]) -> None:
        Output(as_json=False).error(LumaConfigError("That is wrong."))

        assert capsys.readouterr() == ("", "That is wrong.\n")

    def test_with_json_an_error_is_an_object(self, capsys: pytest.CaptureFixture[str]) -> None:
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


class TestTextFromOutside:
    @pytest.mark.parametrize("way", ["message", "lines", "json", "error"])
    def test_no_output_contains_characters_that_control_a_terminal(
        self, way: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        output = Output(as_json=True)
        match way:
            case "message":
                output.message(HOSTILE)
            case "lines":
                output.lines([HOSTILE])
            case "json":
                output.json([{"prompt": HOSTILE, HOSTILE: [HOSTILE]}])
            case _:
                output.error(LumaBusyError(HOSTILE, status=429, code=HOSTILE, request_id=HOSTILE))

        out, err = capsys.readouterr()
        assert out + err
        assert not set(CONTROLS) & set(out + err)

    def test_json_escapes_invisible_characters(self, capsys: pytest.CaptureFixture[str]) -> None:
        Output(as_json=True).json({"a": "\x9b\u202e\U000e0041 猫"})

        out = capsys.readouterr().out
        assert "猫" in out
        assert json.loads(out) == {"a": "\x9b\u202e\U000e0041 猫"}

    @given(
        value=st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
            max_leaves=10,
        )
        | st.integers(min_value=10**400, max_value=10**401)
    )
    def test_every_value_can_be_printed_as_json(self, value: Any) -> None:
        stdout = sys.stdout
        sys.stdout = written = io.StringIO()
        try:
            Output(as_json=True).json(value)
        finally:
            sys.stdout = stdout

        line = written.getvalue()
        assert line.endswith("\n")
        assert line.count("\n") == 1
        json.loads(line)

    def test_json_is_ascii_where_the_encoding_is_ascii(self, monkeypatch: pytest.MonkeyPatch) -> None:
        written = io.BytesIO()
        monkeypatch.setattr("sys.stdout", io.TextIOWrapper(written, encoding="ascii"))
        output = Output(as_json=True)
        output.json({"a": "猫"})
        output.lines(["猫"])

        document, line = written.getvalue().decode("ascii").splitlines()
        assert json.loads(document) == {"a": "猫"}
        assert line == "\\u732b"


class TestStandardOutputThatCannotBeWritten:
    @pytest.mark.parametrize(
        ("stream", "why"),
        [
            (None, "closed"),
            (_Broken(OSError(errno.ENOSPC, "No space left on device")), "No space left"),
            (_Broken(BrokenPipeError(errno.EPIPE, "Broken pipe")), "Broken pipe"),
            (_Broken(ValueError("I/O operation on closed file.")), "closed file"),
        ],
        ids=["closed", "full", "no reader", "closed later"],
    )
    @pytest.mark.parametrize("way", ["lines", "json", "show"])
    def test_every_kind_of_output_fails_with_the_same_error(
        self, way: str, stream: Any, why: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("sys.stdout", stream)
        output = Output(as_json=False)
        table = Table.grid()
        table.add_row("text")
        prints = {
            "lines": lambda: output.lines(["x"]),
            "json": lambda: output.json({}),
            "show": lambda: output.show(table),
        }

        with pytest.raises(LumaOutputError, match=why):
            prints[way]()

    def test_the_first_error_decides_the_exit_code(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr("sys.stdout", None)

        Output(as_json=True).error(LumaAmbiguousSubmitError("Perhaps billed."))

        assert "Perhaps billed." in capsys.readouterr().err

    @pytest.mark.parametrize("stream", [None, _Broken(OSError(errno.ENOSPC, "No space left on device"))])
    def test_unwritable_messages_do_not_lose_the_result(
        self, stream: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr("sys.stderr", stream)
        output = Output(as_json=False)
        with output.reserve_stdout():
            output.message("on the way")
            output.message("still on the way")
        output.lines(["result"])

        assert capsys.readouterr().out == "result\n"
