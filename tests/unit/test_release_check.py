# SPDX-License-Identifier: Apache-2.0
"""tools/release_check.sh stops at what is not ready, before it builds anything."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.patience import PATIENCE
from tests.support.sources import ROOT

READY = {
    "airflow_provider_luma/__init__.py": '__version__ = "1.2.3"\n',
    "CHANGELOG.md": "# Changelog\n\n## 1.2.3 (2030-01-31)\n\n## 1.2.2 (2029-01-31)\n",
    "pyproject.toml": '[project.urls]\nRepository = "https://example.com/repository"\n',
    ".gitignore": "dist/\n.venv/\n",
    # Stand in for what takes half an hour.
    ".ci/run": "#!/bin/sh\nmkdir dist && touch dist/airflow_provider_luma-1.2.3-py3-none-any.whl\n",
    ".venv/bin/python": "#!/bin/sh\n",
}


@pytest.fixture
def git(tmp_path: Path) -> Callable[..., None]:
    def run(*arguments: str) -> None:
        identity = (
            "-c",
            "user.name=A. Tester",
            "-c",
            "user.email=tester@example.com",
            "-c",
            "commit.gpgsign=false",
        )
        subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True)

    return run


@pytest.fixture
def project(tmp_path: Path, git: Callable[..., None]) -> Path:
    for name, text in READY.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        if text.startswith("#!"):
            file.chmod(0o755)
    (tmp_path / "tools").mkdir()
    shutil.copy(ROOT / "tools" / "release_check.sh", tmp_path / "tools")
    git("init", "--quiet", "--initial-branch", "main")
    git("add", "--all")
    git("commit", "--quiet", "--message", "Release 1.2.3")
    return tmp_path


def check(project: Path) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    return subprocess.run(
        ["bash", project / "tools" / "release_check.sh"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )


def test_what_is_ready_gets_the_commands_that_release_it(project: Path) -> None:
    result = check(project)

    assert result.returncode == 0, result.stderr
    assert "git push origin v1.2.3" in result.stdout


@pytest.mark.parametrize(
    ("file", "text", "named"),
    [
        ("airflow_provider_luma/__init__.py", '__version__ = "1.2.3rc1"\n', "1.2.3rc1"),
        ("CHANGELOG.md", "## 1.2.3 (unreleased)\n", "unreleased"),
        ("CHANGELOG.md", "## 1.2.4 (2030-01-31)\n\n## 1.2.3 (2030-01-31)\n", "1.2.4"),
        ("pyproject.toml", "[project.urls]\n", "Repository"),
        (".ci/run", "#!/bin/sh\nmkdir dist\n", "airflow_provider_luma-1.2.3-py3-none-any.whl"),
        (".ci/run", f"{READY['.ci/run']}touch left-behind\n", "changes"),
    ],
)
def test_what_is_not_ready_is_named(
    project: Path, git: Callable[..., None], file: str, text: str, named: str
) -> None:
    (project / file).write_text(text)
    git("commit", "--quiet", "--all", "--message", "Change it")

    result = check(project)

    assert result.returncode == 1
    assert named in result.stderr


def test_a_tag_is_given_once(project: Path, git: Callable[..., None]) -> None:
    git("tag", "v1.2.3")

    assert "v1.2.3 exists" in check(project).stderr


def test_another_branch_is_not_released(project: Path, git: Callable[..., None]) -> None:
    git("switch", "--quiet", "--create", "topic")

    assert "topic" in check(project).stderr


def test_changes_that_are_not_committed_are_not_released(project: Path) -> None:
    (project / "new.py").touch()

    assert "work tree" in check(project).stderr
