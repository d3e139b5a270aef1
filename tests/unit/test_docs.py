# SPDX-License-Identifier: Apache-2.0
"""The documentation states the names, options and numbers of the code."""

from __future__ import annotations

import inspect
import re
import shlex
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

from airflow_provider_luma import exceptions
from airflow_provider_luma.cli.definition import COMMANDS, EXIT_CODES, make_parser
from airflow_provider_luma.connection_fields import EXTRA_FIELDS
from airflow_provider_luma.download.options import DownloadOptions
from airflow_provider_luma.operators.base import LumaSubmitOperator
from airflow_provider_luma.sensors.luma import LumaTaskSensor
from tests.support.sources import PACKAGE, ROOT, imported_names, load_module

DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("**/*.md"))


def page(name: str) -> str:
    return (DOCS / name).read_text()


def constant(package: str, name: str) -> object:
    """Return a constant of a package, whichever of its modules defines it."""
    modules = [
        import_module(f"{PACKAGE.name}.{package}.{path.stem}") for path in (PACKAGE / package).glob("*.py")
    ]
    (value,) = {vars(module)[name] for module in modules if name in vars(module)}
    return value


def contributing() -> str:
    return (ROOT / "CONTRIBUTING.md").read_text()


@pytest.fixture(scope="module")
def tables() -> ModuleType:
    pytest.importorskip("sphinx", reason="only the development environment has Sphinx")
    return load_module(DOCS / "_ext" / "luma_tables.py")


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


class TestGeneratedTables:
    def test_the_reference_has_every_connection_field_with_its_default(self, tables: ModuleType) -> None:
        rows = tables.connection_fields().splitlines()[2:]

        assert "{luma-connection-fields}" in page("reference/connection.md")
        assert [row.split(" | ")[0] for row in rows] == [f"| `{field.name}`" for field in EXTRA_FIELDS]
        assert [row.split(" | ")[2] for row in rows][:3] == ["`100`", "`5`", "`30`"]

    def test_the_reference_has_every_error(self, tables: ModuleType) -> None:
        kinds = {name for name in exceptions.__all__ if name.startswith("Luma")} - {"LumaError"}

        assert "{luma-errors}" in page("reference/exceptions.md")
        assert set(re.findall(r"exceptions\.(Luma\w+)`", tables.errors())) == kinds

    @pytest.mark.parametrize(
        ("error", "retried"),
        [("LumaBusyError", "yes"), ("LumaConfigError", "no"), ("LumaDownloadError", "depends")],
    )
    def test_an_error_says_whether_it_is_retried(self, tables: ModuleType, error: str, retried: str) -> None:
        (row,) = [row for row in tables.errors().splitlines() if f".{error}`" in row]

        assert row.split(" | ")[1] == retried

    def test_every_error_with_advice_is_one(self) -> None:
        _, _, advice = page("reference/exceptions.md").partition("## What to do")

        assert set(re.findall(r"`(Luma\w+)`", advice)) <= set(exceptions.__all__)


class TestPublicInterface:
    def test_every_name_that_is_public_is_there(self) -> None:
        rows = re.findall(
            r"^\| `(airflow_provider_luma[\w.]+)` \| (.*) \|$", page("public-interface.md"), re.MULTILINE
        )

        assert rows
        for module, names in rows:
            for name in re.findall(r"`(\w+)`", names):
                assert hasattr(import_module(module), name), f"{module}.{name}"


class TestDecisions:
    #: Airflow's public interface, and what providers are meant to use for every version of it.
    PUBLIC = r"airflow\.(sdk\.\w+|providers\.common\.compat\..*|triggers\.base\..*|plugins_manager\..*)"

    def test_the_record_names_every_import_that_airflow_calls_private(self) -> None:
        record = page("decisions/0007-private-airflow-names.md")
        used = {
            name.rpartition(".")[0]
            for path in PACKAGE.rglob("*.py")
            for name in imported_names(path.read_text())
            if name.startswith("airflow.") and not re.fullmatch(self.PUBLIC, name)
        }
        used |= set(re.findall(r'"(airflow\.[\w.]*stats)"', (PACKAGE / "version_compat.py").read_text()))

        assert set(re.findall(r"`(airflow\.[\w.]+)`", record.partition("| name |")[2])) == used

    def test_the_records_are_numbered_without_gaps(self) -> None:
        numbers = [int(path.name[:4]) for path in sorted((DOCS / "decisions").glob("0*.md"))]

        assert numbers == list(range(1, len(numbers) + 1))
        for path in (DOCS / "decisions").glob("0*.md"):
            assert path.read_text().startswith(f"# {int(path.name[:4])}. ")


class TestProse:
    @pytest.mark.parametrize("path", [*PAGES, *ROOT.glob("*.md")], ids=lambda path: path.name)
    def test_every_link_to_a_file_leads_to_one(self, path: Path) -> None:
        targets = re.findall(r"\]\(([^)#:]+)\)", path.read_text())

        assert [target for target in targets if not (path.parent / target).exists()] == []

    def test_every_recipe_names_files_that_are_there(self) -> None:
        named = re.findall(r"`((?:airflow_provider_luma|docs|tests|tools)/[\w/.-]+)`", contributing())

        assert [name for name in named if not (ROOT / name).exists()] == []

    def test_every_make_target_that_is_named_is_one(self) -> None:
        targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
        texts = [(ROOT / "README.md").read_text(), contributing(), page("releasing.md")]
        commands = [command for text in texts for command in re.findall(r"\bmake ([a-z -]+)`", text)]

        assert {word for command in commands for word in command.split()} - targets == set()

    def test_the_readme_is_short(self) -> None:
        assert len((ROOT / "README.md").read_text().splitlines()) <= 150


class TestWaiting:
    def test_the_page_has_every_metric(self) -> None:
        source = "".join(path.read_text() for path in (PACKAGE / "waiting").glob("*.py"))
        used = set(re.findall(r'"(luma\.poller\.[a-z_]+)"', source))

        assert set(re.findall(r"`(luma\.poller\.[a-z_]+)`", page("waiting.md"))) == used

    def test_its_numbers_are_those_of_the_code(self) -> None:
        text = page("waiting.md")
        parameters = inspect.signature(LumaTaskSensor).parameters

        assert (constant("waiting", "MAX_CALLS"), constant("waiting", "MAX_BACKOFF")) == (4, 120)
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

        assert named <= {path.name for path in PACKAGE.rglob("*.py")} | {"test_layers.py"}

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
