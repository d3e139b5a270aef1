# SPDX-License-Identifier: Apache-2.0
"""What the guides say about names, options and numbers is what the code has."""

from __future__ import annotations

import inspect
import re
import shlex
from pathlib import Path

import pytest

from airflow_provider_luma.cli.definition import COMMANDS, EXIT_CODES, make_parser
from airflow_provider_luma.connection_fields import EXTRA_FIELDS
from airflow_provider_luma.download.options import DownloadOptions
from airflow_provider_luma.operators.base import LumaSubmitOperator
from airflow_provider_luma.sensors.luma import LumaTaskSensor
from airflow_provider_luma.waiting import backoff, connection, poller

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "airflow_provider_luma"
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("**/*.md"))


def page(name: str) -> str:
    return (DOCS / name).read_text()


def shell_lines() -> list[tuple[str, str]]:
    return [
        (path.name, line)
        for path in PAGES
        for block in re.findall(r"^```bash\n(.*?)^```", path.read_text(), re.MULTILINE | re.DOTALL)
        for line in block.splitlines()
        if re.search(r"\b(airflow luma|airflow_provider_luma) ", line)
    ]


class TestCommandLine:
    @pytest.mark.parametrize(("name", "line"), shell_lines())
    def test_every_command_that_a_guide_shows_is_one(self, name: str, line: str) -> None:
        for part in re.split(r"\||&&|\$\(|\)", line):
            words = shlex.split(re.sub(r".*(airflow luma|-m airflow_provider_luma) ", "luma ", part))
            if words[:1] == ["luma"] and words[1:] != ["--help"]:
                make_parser().parse_args(words[1:])

    def test_the_page_has_every_command_and_option(self) -> None:
        text = page("command-line.md")

        for command in COMMANDS:
            assert f"\n### {command.name}\n" in text
            for option in command.options:
                for flag in option.flags:
                    assert not flag.startswith("--") or f"`{flag}" in text, flag

    def test_the_page_has_every_exit_code(self) -> None:
        for code, meaning in EXIT_CODES.items():
            assert f"| {code.value} | {meaning} |" in page("command-line.md")


class TestQuickStart:
    def test_the_page_has_every_field_of_the_connection_with_its_default(self) -> None:
        text = page("quick-start.md")

        for field in EXTRA_FIELDS:
            (row,) = re.findall(rf"^\| `{field.name}` \|.*\| (.*)\|$", text, re.MULTILINE)
            default = (
                "" if field.default is None else f"{field.default:g}" if field.type != "string" else "`true`"
            )
            assert row.strip() == default


class TestWaiting:
    def test_the_page_has_every_metric(self) -> None:
        source = inspect.getsource(poller) + inspect.getsource(connection)
        used = set(re.findall(r'"(luma\.poller\.[a-z_]+)"', source))

        assert set(re.findall(r"`(luma\.poller\.[a-z_]+)`", page("waiting.md"))) == used

    def test_its_numbers_are_those_of_the_code(self) -> None:
        text = page("waiting.md")
        parameters = inspect.signature(LumaTaskSensor).parameters

        assert (poller.MAX_CALLS, backoff.MAX_BACKOFF) == (4, 120)
        assert "at most four calls at the same time" in text
        assert "up to two minutes apart" in text
        assert (parameters["missing_polls"].default, parameters["max_failed"].default) == (3, 0)
        assert "after `missing_polls` (3) answers" in text


class TestDownloads:
    def test_its_numbers_are_those_of_the_code(self) -> None:
        options = DownloadOptions()

        assert (options.max_concurrency, options.max_bytes, options.file_timeout) == (8, 2 * 1024**3, 3600)
        text = re.sub(r"\s+", " ", page("downloads.md"))
        assert "`max_concurrency`, default 8" in text
        assert "`max_bytes` (2 GiB) and `file_timeout` (one hour)" in text


class TestPayingOnce:
    def test_the_choices_that_it_names_are_there(self) -> None:
        parameters = inspect.signature(LumaSubmitOperator).parameters

        assert parameters["on_ambiguous"].default == "fail"
        assert parameters["on_clear"].default == "restart"


class TestArchitecture:
    def test_every_module_that_it_names_is_there(self) -> None:
        named = set(re.findall(r"\b[a-z_]+\.py\b", page("architecture.md")))

        assert named <= {path.name for path in PACKAGE.rglob("*.py")}

    def test_it_names_every_package_and_every_module_of_the_core(self) -> None:
        text = page("architecture.md")
        packages = {path.parent.relative_to(PACKAGE).parts[0] for path in PACKAGE.glob("*/__init__.py")}
        modules = [
            path.name
            for package in ("client", "waiting", "submitting", "download")
            for path in (PACKAGE / package).glob("[a-z]*.py")
        ]

        assert [name for name in packages if f"{name}/" not in text] == []
        assert [name for name in modules if name not in text] == []


class TestExampleDags:
    def test_the_page_shows_every_example(self) -> None:
        shown = re.findall(r"literalinclude\} \.\./example_dags/(\S+)", page("examples.md"))

        assert sorted(shown) == sorted(path.name for path in (ROOT / "example_dags").glob("*.py"))
