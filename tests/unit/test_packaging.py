# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import airflow_provider_luma
from airflow_provider_luma import version_compat
from tests.support.sources import PACKAGE, imported_names

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
REQUIREMENTS = {requirement.name: requirement for requirement in map(Requirement, PROJECT["dependencies"])}

#: Imported only where it is installed: nothing but the connection form of Airflow 3.1.0 to 3.1.2 needs it.
OPTIONAL = {"wtforms"}

# The classes of one letter keep these patterns from matching themselves.
REGISTRY = re.compile(
    "|".join(
        [
            r"://[\w.-]*(?:py[p]i|python[h]osted|npm[j]s|artifact[o]ry|dev[p]i|nex[u]s)[\w.-]*",
            r"://\S+/sim[p]le\b",
            r"^\s*(?:--)?(?:extra-)?index[-]url\b",
            r"--find[-]links\b",
        ]
    ),
    re.MULTILINE,
)
SOMEONES_HOME = re.compile(r"(?<![\w.:/-])/(?:home|Users)/[a-z]\w*")


def project_files() -> list[Path]:
    """The files under version control or, in an unpacked sdist, all of its files."""
    if not (ROOT / ".git").exists():
        return [path for path in ROOT.rglob("*") if path.is_file()]
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True)
    return [path for name in listing.stdout.split("\0") if name and (path := ROOT / name).is_file()]


def text_files() -> dict[Path, str]:
    binary = {".mp4", ".jpg", ".jpeg", ".png", ".webp"}
    return {path: path.read_text() for path in project_files() if path.suffix not in binary}


def pins(constraints: str) -> dict[str, Version]:
    lines = (ROOT / "constraints" / constraints).read_text().splitlines()
    requirements = [Requirement(line) for line in lines if not line.startswith("#")]
    return {
        requirement.name: Version(next(iter(requirement.specifier)).version)
        for requirement in requirements
        if requirement.marker is None or requirement.marker.evaluate()
    }


DISTRIBUTIONS = packages_distributions()


def distribution_of(module: str) -> str:
    """Return the distribution to declare for a module; many share the namespace ``airflow``."""
    for prefix, distribution in {
        "airflow.providers.common.compat": "apache-airflow-providers-common-compat",
        "airflow.providers": "",
        "airflow": "apache-airflow",
    }.items():
        if f"{module}.".startswith(f"{prefix}."):
            return distribution or module
    (distribution,) = set(DISTRIBUTIONS.get(module.partition(".")[0], [module]))
    return canonicalize_name(distribution)


def imported_distributions() -> set[str]:
    modules = set().union(*(imported_names(file.read_text()) for file in PACKAGE.rglob("*.py")))
    foreign = {
        module
        for module in modules
        if module.partition(".")[0] not in sys.stdlib_module_names | {"airflow_provider_luma"}
    }
    return {distribution_of(module) for module in foreign}


class TestVersion:
    def test_the_installed_version_is_the_packages_own(self) -> None:
        assert version("airflow-provider-luma") == airflow_provider_luma.__version__

    def test_the_version_is_written_in_one_place(self) -> None:
        assert PROJECT["dynamic"] == ["version"]
        assert "version" not in PROJECT

    def test_the_changelog_knows_the_version(self) -> None:
        assert f"\n## {airflow_provider_luma.__version__} " in (ROOT / "CHANGELOG.md").read_text()

    def test_the_airflow_flags_follow_the_installed_airflow(self) -> None:
        core = Version(version("apache-airflow-core"))

        assert (core >= Version("3.2.0.dev0")) == version_compat.AIRFLOW_V_3_2_PLUS
        assert (core >= Version("3.3.0.dev0")) == version_compat.AIRFLOW_V_3_3_PLUS


class TestDependencies:
    def test_what_the_package_imports_is_what_it_declares(self) -> None:
        assert imported_distributions() - OPTIONAL == set(REQUIREMENTS)

    @pytest.mark.parametrize(
        ("source", "distribution"),
        [
            ("def later():\n    import yaml.nodes", "pyyaml"),
            ("from jinja2 import Environment", "jinja2"),
            ("from airflow.sdk import DAG", "apache-airflow"),
            ("from airflow.providers.common.compat import sdk", "apache-airflow-providers-common-compat"),
            ("from airflow.providers.standard import hooks", "airflow.providers.standard.hooks"),
            ("import no_such_package", "no-such-package"),
        ],
    )
    def test_an_import_names_its_distribution(self, source: str, distribution: str) -> None:
        assert {distribution_of(module) for module in imported_names(source)} == {distribution}

    @pytest.mark.parametrize("name", REQUIREMENTS)
    def test_every_declared_minimum_is_what_the_oldest_environment_pins(self, name: str) -> None:
        (minimum,) = REQUIREMENTS[name].specifier

        assert minimum.operator == ">="
        assert Version(minimum.version) == pins("airflow-3.1.0.txt")[name]

    @pytest.mark.parametrize("constraints", sorted(path.name for path in (ROOT / "constraints").iterdir()))
    def test_every_environment_fulfils_every_requirement(self, constraints: str) -> None:
        pinned = pins(constraints)

        assert constraints == f"airflow-{pinned['apache-airflow']}.txt"
        for name, requirement in REQUIREMENTS.items():
            assert requirement.specifier.contains(pinned[name], prereleases=True)


class TestFiles:
    def test_no_file_names_a_package_registry(self) -> None:
        found = {path: match[0] for path, text in text_files().items() if (match := REGISTRY.search(text))}

        assert found == {}

    def test_no_file_names_a_path_of_the_machine_it_was_written_on(self) -> None:
        places = {str(place) for place in (ROOT, Path.home(), Path(sys.prefix)) if place != Path("/")}
        here = re.compile(r"(?<![\w.:/-])(?:" + "|".join(map(re.escape, sorted(places))) + r")(?![\w-])")
        found = {
            path: match[0]
            for path, text in text_files().items()
            if (match := here.search(text) or SOMEONES_HOME.search(text))
        }

        assert found == {}

    @pytest.mark.parametrize(
        "line",
        [
            "https://files.python" + "hosted.org/packages/x.whl",
            "http://mirror.example:8080/root/sim" + "ple/",
            "--index" + "-url https://example.com",
            "--find" + "-links wheels",
        ],
    )
    def test_a_registry_would_be_noticed(self, line: str) -> None:
        assert REGISTRY.search(line)

    def test_every_source_file_states_its_licence(self) -> None:
        sources = {path: text for path, text in text_files().items() if path.suffix in {".py", ".sh"}}
        without = [
            path
            for path, text in sources.items()
            if text and "# SPDX-License-Identifier: Apache-2.0" not in text.splitlines()[:2]
        ]

        assert sources
        assert without == []
