#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Carries out the release checklist of docs/releasing.md up to the upload. Changes nothing but dist/.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() {
    echo "Not ready for a release: $1" >&2
    exit 1
}

version=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' airflow_provider_luma/__init__.py)
[[ $version =~ ^[0-9]+\.[0-9]+\.[0-9]+$ ]] ||
    fail "the version in airflow_provider_luma/__init__.py must be X.Y.Z; got '$version'."
[[ -z $(git tag --list "v$version") ]] ||
    fail "the tag v$version exists. Set the next version in airflow_provider_luma/__init__.py."
echo "Version: $version"

newest=$(grep -m 1 '^## ' CHANGELOG.md)
[[ $newest =~ ^"## $version ("[0-9]{4}-[0-9]{2}-[0-9]{2}")"$ ]] ||
    fail "the first section of CHANGELOG.md must be '## $version (YYYY-MM-DD)'; got '$newest'."
echo "Changelog: $newest"

grep -q '^Repository = "https://' pyproject.toml ||
    fail "[project.urls] in pyproject.toml has no Repository, so users of the release can't find the source."

[[ -z $(git status --porcelain) ]] || fail "the work tree has changes. Commit or remove them."
branch=$(git branch --show-current)
[[ $branch == main ]] || fail "releases are made from main; this is '$branch'."
echo "Work tree: clean, on main, at $(git rev-parse --short HEAD)"

# Builds dist/ and checks what is in it.
.ci/run

wheel=dist/airflow_provider_luma-$version-py3-none-any.whl
[[ -f $wheel ]] || fail "$wheel is missing."
.venv/bin/python tools/check_dist.py dist
if .venv/bin/python -c 'import twine' 2>/dev/null; then
    .venv/bin/python -m twine check --strict dist/*
else
    echo "NOT CHECKED: twine is not installed in .venv, so the metadata was not rendered."
fi

[[ -z $(git status --porcelain) ]] || fail "the checks have left changes in the work tree."
echo
echo "Ready. Release it with:"
echo "    git tag --annotate v$version --message 'airflow-provider-luma $version'"
echo "    git push origin v$version"
