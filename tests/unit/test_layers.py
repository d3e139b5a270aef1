# SPDX-License-Identifier: Apache-2.0
"""Imports point down: a part of the package knows only the layers below its own, and the core no Airflow."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.sources import PACKAGE, imported_names

#: The core, from the bottom up. Parts of one layer don't import each other.
CORE = (
    {"exceptions"},
    {"text"},
    {"connection_fields", "delays", "state", "templates", "validation"},
    {"client"},
    {"task_ids"},
    {"download", "submitting", "waiting"},
)
#: What Airflow's users see, from the bottom up.
FACES = (
    {"version_compat"},
    {"hooks", "links", "outcomes", "retries", "task_state"},
    {"triggers"},
    {"operators", "sensors", "transfers"},
    {"cli", "get_provider_info", "plugins"},
    {"__main__"},
)
#: A program of its own: it repeats the relay's tables, so that a mistake in the client's can't hide in it.
SANDBOX = "sandbox"
#: The command line starts the sandbox, and nothing else of the package knows it.
MAY_IMPORT_SANDBOX = {"cli"}

LAYERS = (*CORE, *FACES)
# Sorted, so that every process of the test run collects the same tests.
LEVELS = {part: level for level, parts in enumerate(LAYERS) for part in sorted(parts)}
CORE_PARTS = sorted(set().union(*CORE))


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def modules_of(part: str) -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if part_of(path) == part)


def parts() -> set[str]:
    return {part_of(path) for path in PACKAGE.rglob("*.py")} - {"__init__"}


def imports_of(part: str) -> dict[str, set[str]]:
    """Return which other parts each module of a part imports; Airflow counts as the part ``airflow``."""
    sources = {path.relative_to(PACKAGE).as_posix(): path.read_text() for path in modules_of(part)}
    return {name: targets_of(source) - {part} for name, source in sources.items()}


def targets_of(source: str) -> set[str]:
    return set().union(*map(targets, imported_names(source)))


def targets(name: str) -> set[str]:
    package, *rest = name.split(".")
    if package == "airflow":
        return {"airflow"}
    # A name of the package itself, such as its version, is no part.
    return {rest[0]} & (parts() | {"__main__"}) if package == PACKAGE.name and rest else set()


class TestLayers:
    def test_every_part_of_the_package_has_its_layer(self) -> None:
        assert parts() == LEVELS.keys() | {SANDBOX}

    def test_no_part_is_in_two_layers(self) -> None:
        assert sum(map(len, LAYERS)) == len(LEVELS)

    @pytest.mark.parametrize("part", LEVELS)
    def test_a_part_imports_only_the_layers_below_its_own(self, part: str) -> None:
        allowed = {other for other, level in LEVELS.items() if level < LEVELS[part]} | {"airflow"}
        allowed |= {SANDBOX} if part in MAY_IMPORT_SANDBOX else set()

        assert {module: up for module, names in imports_of(part).items() if (up := names - allowed)} == {}

    @pytest.mark.parametrize("part", [*CORE_PARTS, SANDBOX])
    def test_the_core_and_the_sandbox_name_no_airflow_even_for_types(self, part: str) -> None:
        assert [module for module, names in imports_of(part).items() if "airflow" in names] == []

    def test_the_sandbox_imports_nothing_of_the_client(self) -> None:
        assert {module: names for module, names in imports_of(SANDBOX).items() if names} == {}

    @pytest.mark.parametrize(
        ("source", "found"),
        [
            ("def later():\n    from airflow_provider_luma.hooks.luma import LumaHook", {"hooks"}),
            ("if TYPE_CHECKING:\n    from airflow.sdk import Context", {"airflow"}),
            ("import airflow_provider_luma.sensors.luma", {"sensors"}),
            ("from airflow_provider_luma import __version__", set()),
            ("import requests", set()),
        ],
    )
    def test_an_import_anywhere_is_seen(self, source: str, found: set[str]) -> None:
        assert targets_of(source) == found


class TestImports:
    @pytest.mark.parametrize("part", ["", *CORE_PARTS, SANDBOX])
    def test_running_the_imports_of_the_core_brings_no_airflow(self, part: str) -> None:
        code = f"""
import importlib, pkgutil, sys
package = importlib.import_module("airflow_provider_luma{part and "." + part}")
if {part!r}:
    for module in pkgutil.walk_packages(getattr(package, "__path__", []), package.__name__ + "."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
print(*sorted(name for name in sys.modules if name.partition(".")[0] == "airflow"))
"""
        assert run_python(code) == ""

    def test_what_airflow_reads_at_every_start_imports_nothing_but_the_standard_library(self) -> None:
        code = """
import sys
before = set(sys.modules)
import airflow_provider_luma.get_provider_info
added = {name.partition(".")[0] for name in set(sys.modules) - before}
print(*sorted(added - sys.stdlib_module_names))
"""
        assert run_python(code) == "airflow_provider_luma"


def run_python(code: str) -> str:
    result = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()
