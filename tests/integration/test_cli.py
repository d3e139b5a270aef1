# SPDX-License-Identifier: Apache-2.0
"""Each command of the command line over real HTTP."""

from __future__ import annotations

import base64
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from airflow_provider_luma import __main__
from airflow_provider_luma.cli.definition import Exit
from airflow_provider_luma.sandbox import LumaSandbox, faults
from tests.support.patience import PATIENCE

API_KEY = "sk-a-key-of-this-test"
PROMPT = "a paper boat at dawn"


class Result(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Luma = Callable[..., Result]


@pytest.fixture
def sandbox(dialect: str) -> Iterator[LumaSandbox]:
    with LumaSandbox(
        dialect=dialect, api_key=API_KEY, pending_seconds=0, processing_seconds=0, balance_usd=5
    ) as sandbox:
        yield sandbox


@pytest.fixture(autouse=True)
def _point_at_the_sandbox(sandbox: LumaSandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUMA_API_KEY", API_KEY)
    monkeypatch.setenv("LUMA_BASE_URL", sandbox.base_url)


@pytest.fixture
def luma(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Luma:
    """Run a command to its end."""

    def luma(*arguments: str, stdin: str = "") -> Result:
        monkeypatch.setattr("sys.stdin", io.StringIO(stdin))
        with pytest.raises(SystemExit) as caught:
            __main__.main(arguments)
        result = Result(int(caught.value.code or 0), *capsys.readouterr())
        assert "Traceback" not in result.err
        assert API_KEY not in result.out + result.err
        return result

    return luma


def _interrupt_when(happened: Callable[[], object]) -> None:
    """Press Ctrl-C once this has happened."""
    while not happened():
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGINT)


class TestCheck:
    @pytest.mark.parametrize("dialect", ["bare", "envelope"], indirect=True)
    def test_it_tells_address_latency_and_balance_and_buys_nothing(
        self, luma: Luma, sandbox: LumaSandbox
    ) -> None:
        code, out, _ = luma("check")

        assert code == Exit.OK
        assert sandbox.base_url in out
        assert "environment variable LUMA_API_KEY" in out
        assert " ms" in out
        assert "5.00 USD left of 5.00 USD" in out
        assert sandbox.generations == []

    def test_as_json(self, luma: Luma, sandbox: LumaSandbox) -> None:
        result = luma("check", "--json")

        assert result.code == Exit.OK
        assert result.json.pop("latency_seconds") >= 0
        assert result.json | {"latency_seconds": 0} == {
            "base_url": sandbox.base_url,
            "source": "environment variable LUMA_API_KEY",
            "latency_seconds": 0,
            "balance": {"limit_usd": 5.0, "used_usd": 0.0, "remaining_usd": 5.0},
        }

    def test_a_relay_that_tells_no_balance_is_a_good_one(self, luma: Luma, sandbox: LumaSandbox) -> None:
        sandbox.fail_when("billing", faults.ok_html())

        result = luma("check")

        assert result.code == Exit.OK
        assert "not told by this relay" in result.out
        assert luma("check", "--json").json["balance"] is None

    @pytest.mark.parametrize("dialect", ["bare", "envelope"], indirect=True)
    def test_a_key_without_limit(self, luma: Luma, monkeypatch: pytest.MonkeyPatch, dialect: str) -> None:
        with LumaSandbox(dialect=dialect, api_key=API_KEY) as unlimited:
            monkeypatch.setenv("LUMA_BASE_URL", unlimited.base_url)

            assert "without limit (used: 0.00 USD)" in luma("check").out

    def test_a_wrong_key_is_told_and_asked_with_once(
        self, luma: Luma, sandbox: LumaSandbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("LUMA_API_KEY", "sk-another-key")

        code, out, err = luma("check")

        assert code == Exit.ERROR
        assert out == ""
        assert "refuses the API key" in err
        assert "sk-another-key" not in err
        assert sandbox.count("batch") == 1

    def test_a_wrong_host_is_told_as_json_too(
        self, luma: Luma, sandbox: LumaSandbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("LUMA_BASE_URL", f"{sandbox.base_url}/elsewhere")

        result = luma("check", "--json")

        assert result.code == Exit.ERROR
        assert result.json["error"]["type"] == "LumaEndpointError"
        assert result.json["error"]["status"] == 404

    def test_an_unusable_variable_is_wrong_usage(self, luma: Luma, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("LUMA_BASE_URL", "ftp://relay.test")

        code, _, err = luma("check")

        assert code == Exit.USAGE
        assert "LUMA_BASE_URL" in err


class TestStatus:
    def test_it_shows_a_row_for_each_and_a_sum(self, luma: Luma, sandbox: LumaSandbox) -> None:
        done = sandbox.add_task(state="completed", prompt=PROMPT)
        under_way = sandbox.add_task(completes_after=60, prompt="[red]fox[/red] \x1b[31m")

        code, out, _ = luma("status", done, under_way)

        assert code == Exit.OK
        first, second = (next(line for line in out.splitlines() if id_ in line) for id_ in (done, under_way))
        assert ("completed" in first, "640x352" in first, PROMPT in first) == (True, True, True)
        assert "[red]fox[/red] [31m" in second
        assert "1/2 completed" in out
        assert sandbox.count("batch") == 1

    def test_failed_and_unknown_ones_are_told_with_their_reasons(
        self, luma: Luma, sandbox: LumaSandbox
    ) -> None:
        failed = sandbox.add_task(state="failed", fails_with="the sky fell down")

        code, out, _ = luma("status", failed, "nobody-knows-me")

        assert code == Exit.TASKS_FAILED
        assert "the sky fell down" in out
        assert "not found" in out

    def test_as_json_in_the_order_given(self, luma: Luma, sandbox: LumaSandbox) -> None:
        done = sandbox.add_task(state="completed", prompt=PROMPT)

        result = luma("status", "nobody-knows-me", done, "--json")

        unknown, known = result.json
        assert (unknown["id"], unknown["state"], unknown["video_url"]) == (
            "nobody-knows-me",
            "not found",
            None,
        )
        assert (known["id"], known["state"], known["prompt"]) == (done, "completed", PROMPT)
        assert known["video_url"].startswith("http://127.0.0.1")

    def test_watching_ends_with_the_last_video(self, luma: Luma, sandbox: LumaSandbox) -> None:
        ids = [sandbox.add_task(completes_after=0.2), sandbox.add_task(completes_after=0.4)]

        code, out, err = luma("status", *ids, "--watch", "--interval", "0.1")

        assert code == Exit.OK
        assert "2/2 completed" in out
        assert "2/2 completed" in err

    def test_watching_as_json_prints_a_line_at_every_change(self, luma: Luma, sandbox: LumaSandbox) -> None:
        task_id = sandbox.add_task(completes_after=0.2)

        code, out, _ = luma("status", task_id, "--watch", "--interval", "0.05", "--json")

        states = [json.loads(line)[0]["state"] for line in out.splitlines()]
        assert code == Exit.OK
        assert len(states) > 1
        assert states[-1] == "completed"
        assert len(states) == len(set(states))

    def test_watching_on_a_terminal_repaints_the_table_in_place(self, sandbox: LumaSandbox) -> None:
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
        # A terminal whose last writer has gone answers with an error on Linux.
        with suppress(OSError), os.fdopen(ours, "rb", buffering=0) as terminal:
            while chunk := terminal.read(4096):
                painted += chunk
                if b"0/1 completed" in painted:
                    sandbox.advance(3600)

        assert process.wait(timeout=PATIENCE) == Exit.OK
        assert b"\x1b[2K" in painted
        assert b"1/1 completed" in painted[painted.rindex(b"\x1b[?25h") :]

    def test_watching_outlasts_passing_trouble(self, luma: Luma, sandbox: LumaSandbox) -> None:
        task_id = sandbox.add_task(state="completed")
        sandbox.fail_next("batch", faults.answer(200, "<html>sorry</html>"))

        code, out, err = luma("status", task_id, "--watch", "--interval", "0.05")

        assert code == Exit.OK
        assert "Polling the relay failed" in err
        assert "1/1 completed" in out

    def test_watching_gives_up_when_the_key_is_refused(self, luma: Luma, sandbox: LumaSandbox) -> None:
        sandbox.fail_when("batch", faults.unauthorized())

        assert luma("status", "some-id", "--watch", "--json").code == Exit.ERROR


class TestWait:
    def test_it_prints_the_completed_ids_in_their_order(self, luma: Luma, sandbox: LumaSandbox) -> None:
        ids = [sandbox.add_task(completes_after=0.3), sandbox.add_task(completes_after=0.1)]

        code, out, err = luma("wait", *ids, "--interval", "0.05")

        assert code == Exit.OK
        assert out.splitlines() == ids
        assert "Luma tasks: 1/2 completed" in err
        assert "Luma tasks: 2/2 completed" in err

    def test_ids_can_come_from_standard_input(self, luma: Luma, sandbox: LumaSandbox) -> None:
        ids = [sandbox.add_task(state="completed") for _ in range(2)]

        assert luma("wait", "-", stdin="\n".join(ids)).out.splitlines() == ids

    def test_a_failed_video_is_told_with_its_reason(self, luma: Luma, sandbox: LumaSandbox) -> None:
        bad = sandbox.add_task(state="failed", fails_with="the sky fell down")

        code, out, err = luma("wait", bad)

        assert code == Exit.TASKS_FAILED
        assert out == ""
        assert f"{bad}: the sky fell down" in err

    def test_so_many_may_fail(self, luma: Luma, sandbox: LumaSandbox) -> None:
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

    def test_an_unknown_id_counts_as_failed_after_some_answers(
        self, luma: Luma, sandbox: LumaSandbox
    ) -> None:
        code, _, err = luma("wait", "nobody-knows-me", "--missing-polls", "2", "--interval", "0.01")

        assert code == Exit.TASKS_FAILED
        assert "2 answers in a row left it out" in err
        assert sandbox.count("batch") == 2

    def test_when_the_time_is_over_the_last_states_are_told(self, luma: Luma, sandbox: LumaSandbox) -> None:
        task_id = sandbox.add_task(completes_after=60)

        result = luma("wait", task_id, "--timeout", "0.2", "--interval", "0.05", "--json")

        assert result.code == Exit.TIMEOUT
        assert result.json["verdict"] == "timed_out"
        assert result.json["open"] == [task_id]
        assert "wait again for them" in result.err

    def test_a_refused_key_ends_it_at_once(self, luma: Luma, sandbox: LumaSandbox) -> None:
        sandbox.fail_when("batch", faults.unauthorized())

        code, _, err = luma("wait", "some-id")

        assert code == Exit.ERROR
        assert "refuses the API key" in err

    @pytest.mark.parametrize("wrong", ["../secrets", "a b"])
    def test_what_is_no_id_is_asked_of_nobody(self, luma: Luma, sandbox: LumaSandbox, wrong: str) -> None:
        code, _, err = luma("wait", wrong)

        assert code == Exit.USAGE
        assert f"{wrong!r} is not a Luma task id" in err
        assert sandbox.calls == []

    def test_ctrl_c_leaves_with_a_word(self, sandbox: LumaSandbox) -> None:
        task_id = sandbox.add_task(completes_after=3600)
        process = subprocess.Popen(
            [sys.executable, "-m", "airflow_provider_luma", "wait", task_id, "--interval", "0.05"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # What runs in a shell's background ignores Ctrl-C, and so would its children.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        assert process.stderr is not None
        first_line = process.stderr.readline()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE)

        assert "0/1 completed" in first_line
        assert process.returncode == Exit.INTERRUPTED
        assert out == ""
        assert f"Interrupted. 1 of 1 videos keep running at the relay: {task_id}." in err
        assert "Traceback" not in err


class TestGenerate:
    def test_it_buys_one_video_and_prints_its_id(self, luma: Luma, sandbox: LumaSandbox) -> None:
        code, out, err = luma("generate", PROMPT)

        (bought,) = sandbox.generations
        assert code == Exit.OK
        assert out == f"{bought.id}\n"
        assert bought.id in err
        assert "it is billed" in err
        assert sandbox.base_url in err
        assert sandbox.calls[-1].body == {"user_prompt": PROMPT}

    def test_every_field_of_the_request_is_sent_as_given(
        self, luma: Luma, sandbox: LumaSandbox, tmp_path: Path
    ) -> None:
        picture = tmp_path / "first.jpg"
        picture.write_bytes(b"\xff\xd8\xff picture")

        result = luma(
            "generate",
            PROMPT,
            *("--model-name", "ray-v2", "--duration", "5s", "--resolution", "720p"),
            *("--aspect-ratio", "9:16", "--image-url", f"@{picture}"),
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
            "image_url": base64.b64encode(picture.read_bytes()).decode(),
            "image_end_url": "https://pictures.test/last.jpg",
            "loop": False,
            "expand_prompt": True,
            "notify_hook": "https://hooks.test/luma",
            "seed": 7,
        }

    @pytest.mark.parametrize(
        ("arguments", "told"),
        [
            (["x"], "prompt must have 3 to 5000 characters"),
            ([PROMPT, "--aspect-ratio", "17:3"], "got '17:3'"),
            ([PROMPT, "--loop", "--image-end-url", "https://a.test/b.jpg"], "exclude each other"),
            ([PROMPT, "--extra-fields", "[1]"], "--extra-fields is '[1]'"),
            ([PROMPT, "--image-url", "@/nowhere/at/all.jpg"], "--image-url is @/nowhere/at/all.jpg"),
        ],
    )
    def test_what_would_be_refused_is_not_sent(
        self, luma: Luma, sandbox: LumaSandbox, arguments: list[str], told: str
    ) -> None:
        code, _, err = luma("generate", *arguments)

        assert code == Exit.USAGE
        assert told in err
        assert sandbox.calls == []

    @pytest.mark.parametrize(
        ("fault", "told"),
        [
            (faults.too_many_requests(), "负载已饱和"),
            (faults.insufficient_user_quota(), "用户额度不足"),
            (faults.group_denied(), "无权访问"),
        ],
    )
    def test_a_refusal_is_told_in_the_relays_words_and_sent_once(
        self, luma: Luma, sandbox: LumaSandbox, fault: faults.Fault, told: str
    ) -> None:
        sandbox.fail_when("submit", fault)

        code, out, err = luma("generate", PROMPT)

        assert code == Exit.ERROR
        assert out == ""
        assert told in err
        assert sandbox.count("submit") == 1

    @pytest.mark.parametrize("fault", [faults.drop(), faults.bad_gateway()])
    def test_when_nobody_knows_whether_it_was_bought_that_is_told_and_nothing_sent_again(
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
    def test_a_result_that_cannot_be_printed_is_on_standard_error(
        self, sandbox: LumaSandbox, where: str
    ) -> None:
        """In a process of its own, because the end of Python is where a full output used to fail again."""
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

        (bought,) = sandbox.generations
        assert finished.returncode == Exit.OUTPUT
        assert bought.id in finished.stderr
        assert "Standard output can't be written" in finished.stderr
        assert "Traceback" not in finished.stderr
        assert "Exception ignored" not in finished.stderr

    def test_without_any_open_stream_nothing_is_bought(
        self, luma: Luma, sandbox: LumaSandbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("sys.stdout", None)
        monkeypatch.setattr("sys.stderr", None)

        assert luma("generate", PROMPT).code == Exit.USAGE
        assert sandbox.generations == []

    def test_ctrl_c_in_mid_submit_says_that_it_may_be_billed(
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


class TestDownload:
    def test_files_are_kept_whole_and_their_paths_printed(
        self, luma: Luma, sandbox: LumaSandbox, tmp_path: Path
    ) -> None:
        ids = [sandbox.add_task(state="completed") for _ in range(3)]

        code, out, err = luma(
            "download", *ids, "--to", str(tmp_path / "new" / "folder"), "--artifact", "video"
        )

        assert code == Exit.OK
        paths = [tmp_path / "new" / "folder" / f"{task_id}_video.mp4" for task_id in ids]
        assert sorted(out.splitlines()) == sorted(map(str, paths))
        assert all(path.read_bytes()[4:8] == b"ftyp" for path in paths)
        assert sorted((tmp_path / "new" / "folder").iterdir()) == sorted(paths)
        assert "MiB in" in err

    def test_what_is_there_is_not_fetched_again(
        self, luma: Luma, sandbox: LumaSandbox, tmp_path: Path
    ) -> None:
        task_id = sandbox.add_task(state="completed")
        arguments = ("download", task_id, "--to", str(tmp_path), "--json")
        luma(*arguments)

        result = luma(*arguments)

        (record,) = result.json["files"]
        assert result.code == Exit.OK
        assert record["seconds"] == 0
        assert record["path"] == f"{tmp_path}/{task_id}_video.mp4"
        assert "there already" in result.err

    def test_names_and_artifacts_can_be_chosen(
        self, luma: Luma, sandbox: LumaSandbox, tmp_path: Path
    ) -> None:
        task_id = sandbox.add_task(state="completed")

        luma(
            *("download", task_id, "--to", str(tmp_path), "--file-name", "{id}/{artifact}{ext}"),
            *("--artifact", "video", "--artifact", "thumbnail"),
        )

        assert {path.name for path in (tmp_path / task_id).iterdir()} == {"thumbnail.jpg", "video.mp4"}

    def test_one_that_cannot_be_had_does_not_keep_the_others_away(
        self, luma: Luma, sandbox: LumaSandbox, tmp_path: Path
    ) -> None:
        good = sandbox.add_task(state="completed")

        result = luma("download", "nobody-knows-me", good, "--to", str(tmp_path), "--json")

        assert result.code == Exit.TASKS_FAILED
        assert [record["id"] for record in result.json["files"]] == [good]
        (failure,) = result.json["failures"]
        assert (failure["id"], failure["retryable"]) == ("nobody-knows-me", False)
        assert "doesn't know this id" in failure["reason"]

    def test_a_file_that_is_there_ends_it_when_asked_to(
        self, luma: Luma, sandbox: LumaSandbox, tmp_path: Path
    ) -> None:
        task_id = sandbox.add_task(state="completed")
        (tmp_path / f"{task_id}_video.mp4").write_text("mine")

        code, _, err = luma("download", task_id, "--to", str(tmp_path), "--on-existing", "fail")

        assert code == Exit.ERROR
        assert "there already" in err
        assert (tmp_path / f"{task_id}_video.mp4").read_text() == "mine"

    def test_a_folder_that_cannot_be_written_to_is_told(
        self, luma: Luma, sandbox: LumaSandbox, tmp_path: Path
    ) -> None:
        task_id = sandbox.add_task(state="completed")
        (tmp_path / "file").write_text("no folder")

        assert luma("download", task_id, "--to", str(tmp_path / "file")).code == Exit.ERROR
        code, _, err = luma("download", task_id, "--to", "nosuchstore://bucket")
        assert code == Exit.USAGE
        assert "--to is 'nosuchstore://bucket'" in err

    def test_the_key_goes_to_no_artifact_host(self, luma: Luma, sandbox: LumaSandbox, tmp_path: Path) -> None:
        luma("download", sandbox.add_task(state="completed"), "--to", str(tmp_path))

        fetched = [call for call in sandbox.calls if call.name == "media"]
        assert fetched
        for call in fetched:
            assert "authorization" not in {name.lower() for name in call.headers}


class TestSandbox:
    def test_it_serves_with_the_options_that_it_was_given(self, monkeypatch: pytest.MonkeyPatch) -> None:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "airflow_provider_luma", "sandbox"),
                *("--port", "0", "--json", "--api-key", "sk-of-the-sandbox", "--dialect", "envelope"),
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stdout is not None
            ready = json.loads(process.stdout.readline())
            environment = {
                **os.environ,
                "LUMA_API_KEY": "sk-of-the-sandbox",
                "LUMA_BASE_URL": ready["base_url"],
            }
            checked = subprocess.run(
                [sys.executable, "-m", "airflow_provider_luma", "check", "--json"],
                capture_output=True,
                check=True,
                env=environment,
            )
        finally:
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=PATIENCE)

        assert json.loads(ready["airflow_connection"])["host"] == ready["base_url"]
        assert json.loads(checked.stdout)["base_url"] == ready["base_url"]
        assert process.returncode == 0


@pytest.fixture(scope="module")
def airflow_parser() -> Any:
    """Airflow's own parser, with the commands of all providers."""
    from airflow.cli import cli_parser

    return cli_parser.get_parser()


@pytest.mark.parametrize("dialect", ["bare"])
class TestThroughAirflow:
    def test_the_commands_are_there_with_their_options(
        self, airflow_parser: Any, sandbox: LumaSandbox, capsys: pytest.CaptureFixture[str]
    ) -> None:
        task_id = sandbox.add_task(state="completed")
        parsed = airflow_parser.parse_args(["luma", "wait", task_id, "--max-failed", "any", "--json"])

        with pytest.raises(SystemExit) as caught:
            parsed.func(parsed)

        assert caught.value.code == Exit.OK
        assert json.loads(capsys.readouterr().out)["completed"] == [task_id]

    def test_the_sandbox_gets_its_options(self, airflow_parser: Any) -> None:
        parsed = airflow_parser.parse_args(["luma", "sandbox", "--port", "0", "--help"])

        assert parsed.arguments == ["--port", "0", "--help"]

    def test_its_help_shows_what_can_be_done(
        self, airflow_parser: Any, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(SystemExit):
            airflow_parser.parse_args(["luma", "--help"])

        text = capsys.readouterr().out
        assert 'airflow luma generate "a paper boat at dawn"' in text
        assert "exit codes" in text

    @pytest.mark.usefixtures("metadata_database")
    def test_a_connection_of_the_metadata_database_is_found(self, sandbox: LumaSandbox) -> None:
        from airflow.models.connection import Connection
        from airflow.utils.session import create_session

        connection = Connection(
            conn_id="luma_in_database", conn_type="luma", host=sandbox.base_url, password=API_KEY
        )
        with create_session() as session:
            session.add(connection)
        try:
            finished = subprocess.run(
                [sys.executable, "-m", "airflow", "luma", "check", "--conn-id", "luma_in_database", "--json"],
                capture_output=True,
                text=True,
            )
        finally:
            with create_session() as session:
                session.delete(connection)

        assert finished.returncode == Exit.OK, finished.stderr
        assert json.loads(finished.stdout)["source"] == "connection luma_in_database"
        assert API_KEY not in finished.stdout + finished.stderr

    def test_warnings_that_airflow_logs_stay_out_of_the_json(self, sandbox: LumaSandbox) -> None:
        task_id = sandbox.add_task(state="dancing")
        finished = subprocess.run(
            [sys.executable, "-m", "airflow", "luma", "status", task_id, "--json"],
            capture_output=True,
            text=True,
        )

        assert json.loads(finished.stdout)[0]["state"] == "unknown"
        assert "dancing" in finished.stderr
