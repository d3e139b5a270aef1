# SPDX-License-Identifier: Apache-2.0
"""Check that a wheel contains exactly the package's tracked files, and that an sdist lacks none."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

PACKAGE = "airflow_provider_luma"
METADATA = {"METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE"}
REQUIRED = {f"{PACKAGE}/py.typed", f"{PACKAGE}/get_provider_info.py"}
SDIST_REQUIRED = {
    "LICENSE",
    "README.md",
    "CHANGELOG.md",
    "Makefile",
    "pyproject.toml",
    "tsconfig.json",
    "PKG-INFO",
}


def tracked(folder: str) -> set[str]:
    listing = subprocess.run(["git", "ls-files", folder], check=True, capture_output=True, text=True)
    return set(listing.stdout.split("\n")) - {""}


def check_wheel(wheel: Path) -> list[str]:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if not name.endswith("/")}
    dist_info = next(name.split("/")[0] for name in names if name.endswith(".dist-info/METADATA"))
    expected = tracked(PACKAGE) | {f"{dist_info}/{name}" for name in METADATA}
    problems = [f"missing: {name}" for name in sorted((expected | REQUIRED) - names)]
    problems += [f"unexpected: {name}" for name in sorted(names - expected)]
    media = [name for name in names if name.startswith(f"{PACKAGE}/sandbox/media/")]
    if not {".mp4", ".jpg"} <= {Path(name).suffix for name in media}:
        problems.append("missing: the sandbox's videos and images")
    return problems


def check_sdist(sdist: Path) -> list[str]:
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    expected = SDIST_REQUIRED | tracked(PACKAGE) | tracked("tests")
    return [f"missing: {name}" for name in sorted(expected - names)]


def main(dist: Path) -> int:
    found = 0
    for pattern, check in (("*.whl", check_wheel), ("*.tar.gz", check_sdist)):
        (file,) = dist.glob(pattern)
        problems = check(file)
        found += len(problems)
        print(f"{file.name}: {'complete' if not problems else ''}")
        for problem in problems:
            print(f"  {problem}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
