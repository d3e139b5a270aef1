# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from typing import get_args

import pytest

from airflow_provider_luma import __main__
from airflow_provider_luma.cli.definition import (
    COMMANDS,
    EXIT_CODES,
    Command,
    Exit,
    get_luma_cli_commands,
    make_parser,
)
from airflow_provider_luma.client import GenerationRequest
from airflow_provider_luma.client.artifacts import ARTIFACTS
from airflow_provider_luma.download.options import DownloadOptions, OnExisting

NAMES = [command.name for command in COMMANDS]
OWN_PARSER = {"sandbox"}


Help = Callable[..., str]


@pytest.fixture
def help_of(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Help:
    monkeypatch.setenv("COLUMNS", "100")

    def help_of(*arguments: str) -> str:
        with pytest.raises(SystemExit) as caught:
            __main__.main([*arguments, "--help"])
        assert caught.value.code == Exit.OK
        return capsys.readouterr().out

    return help_of


class TestTheCommands:
    @pytest.mark.parametrize("name", NAMES)
    def test_each_has_a_module_of_its_own(self, name: str) -> None:
        assert find_spec(f"airflow_provider_luma.cli.commands.{name}")

    @pytest.mark.parametrize("command", COMMANDS, ids=NAMES)
    def test_each_has_json_output_and_a_connection(self, command: Command) -> None:
        flags = {flag for option in command.options for flag in option.flags}

        assert command.name in OWN_PARSER or {"--json", "--conn-id"} <= flags

    @pytest.mark.parametrize("command", COMMANDS, ids=NAMES)
    def test_every_option_is_explained(self, command: Command) -> None:
        for option in command.options:
            assert option.keywords["help"]

    @pytest.mark.parametrize("command", COMMANDS, ids=NAMES)
    def test_no_option_takes_a_key(self, command: Command) -> None:
        for option in command.options:
            assert "key" not in " ".join(option.flags)

    def test_every_field_of_a_request_can_be_given(self) -> None:
        parsed = make_parser().parse_args(["generate", "a cat"])

        assert set(GenerationRequest.__struct_fields__) <= set(vars(parsed))

    def test_arguments_after_sandbox_are_passed_on(self) -> None:
        parsed = make_parser().parse_args(["sandbox", "--port", "0", "--help", "-x"])

        assert parsed.arguments == ["--port", "0", "--help", "-x"]

    @pytest.mark.parametrize(
        ("arguments", "named"),
        [
            (["wait", "id", "--timeout", "0"], "a number of seconds above 0; got '0'"),
            (["wait", "id", "--timeout", "nan"], "a number of seconds above 0; got 'nan'"),
            (["wait", "id", "--interval", "soon"], "a number of seconds above 0; got 'soon'"),
            (["wait", "id", "--max-failed", "-1"], "a whole number of at least 0, or 'any'; got '-1'"),
            (["wait", "id", "--missing-polls", "0"], "a whole number of at least 1; got '0'"),
            (["status"], "ID"),
            (["generate"], "PROMPT"),
            ([], "COMMAND"),
            (["render"], "'render'"),
        ],
    )
    def test_wrong_usage_is_named_and_exits_with_2(
        self, arguments: list[str], named: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(SystemExit) as caught:
            __main__.main(arguments)

        assert caught.value.code == Exit.USAGE
        assert named in capsys.readouterr().err

    def test_any_number_of_videos_may_fail_with_any(self) -> None:
        assert make_parser().parse_args(["wait", "id", "--max-failed", "any"]).max_failed is None
        assert make_parser().parse_args(["wait", "id", "--max-failed", "2"]).max_failed == 2


class TestHelp:
    def test_it_shows_examples_costs_credentials_and_exit_codes(self, help_of: Help) -> None:
        text = help_of()

        for name in NAMES:
            assert f"\n    {name}" in text
        assert "python -m airflow_provider_luma check" in text
        assert "costs money" in text
        assert "LUMA_API_KEY" in text
        for code, meaning in EXIT_CODES.items():
            assert f"  {code.value:<4} {meaning}" in text

    def test_it_fits_into_100_columns(self, help_of: Help) -> None:
        for text in (help_of(), *(help_of(name) for name in set(NAMES) - OWN_PARSER)):
            assert max(map(len, text.splitlines())) <= 100

    def test_generate_names_the_costs_and_what_to_do_after_an_unknown_outcome(self, help_of: Help) -> None:
        text = help_of("generate")

        assert "COSTS MONEY" in text
        assert "before you submit it again" in text

    def test_every_exit_code_is_explained(self) -> None:
        assert set(EXIT_CODES) == set(Exit)


class TestForAirflow:
    def test_the_group_has_the_same_commands_and_options(self) -> None:
        from airflow.cli.cli_config import GroupCommand

        (group,) = get_luma_cli_commands()
        assert isinstance(group, GroupCommand)
        assert group.name == "luma"
        for command, ours in zip(group.subcommands, COMMANDS, strict=True):
            parser = argparse.ArgumentParser()
            for option in command.args:
                option.add_to_parser(parser)
            assert command.name == ours.name
            assert command.func == ours.run

    def test_its_definition_imports_nothing_but_the_standard_library(self) -> None:
        code = """
import sys
before = set(sys.modules)
import airflow_provider_luma.cli.definition
new = {name.partition(".")[0] for name in set(sys.modules) - before}
print(sorted(new - set(sys.stdlib_module_names) - {"airflow_provider_luma"}))
"""
        finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

        assert finished.stdout.strip() == "[]"


class TestDownload:
    def test_its_choices_are_those_of_the_downloads(self) -> None:
        (command,) = (command for command in COMMANDS if command.name == "download")
        choices = {option.flags[0]: option.keywords.get("choices") for option in command.options}

        assert choices["--artifact"] == ARTIFACTS
        assert choices["--on-existing"] == get_args(OnExisting)

    def test_the_defaults_in_its_help_are_those_of_the_downloads(self, help_of: Help) -> None:
        options, text = DownloadOptions(), help_of("download")

        assert f"default: {options.file_name})" in text
        assert f"default: {options.max_bytes / 1024**3:.0f} GiB)" in text
        assert f"default: {options.max_concurrency})" in text
