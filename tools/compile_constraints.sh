#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Pins everything that development and CI install, in one file for each Airflow that .ci/run tests.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

project=$(mktemp -d)
trap 'rm -rf "$project"' EXIT

# Pins for Airflow $1, which runs on Pythons before $2. A pre-release can be pinned too: uv takes one where a
# requirement names it, as Airflow's packages do among themselves, and takes releases of everything else.
compile() {
    local airflow=$1 where="python_full_version < '$2' and sys_platform != 'win32'" pins
    shift 2
    echo "Pinning for Airflow $airflow"
    # uv reads the environments that pins must hold in only from pyproject.toml, and they differ by Airflow version.
    { cat pyproject.toml; printf '\n[tool.uv]\nenvironments = ["%s"]\n' "$where"; } >"$project/pyproject.toml"
    pins=$(cd "$project" && echo "apache-airflow==$airflow" | uv pip compile --quiet --universal \
        --python-version 3.11 --prerelease if-necessary-or-explicit \
        --no-annotate --custom-compile-command "make constraints" "$@" pyproject.toml -)
    # Otherwise every line would repeat the condition.
    # shellcheck disable=SC2001  # A parameter expansion knows no ends of lines.
    sed "s/ ; $where\$//" <<<"$pins" >"constraints/airflow-$airflow.txt"
}

mkdir -p constraints
compile 3.4.0b2 3.15 --group test
compile 3.3.2 3.15 --group dev
# Older versions break on dependencies that are much newer (3.2.2 on pydantic 2.14, 3.1.0 on structlog 25.5), so they
# get the dependencies of their time. For 3.1.0 the package's own dependencies are at their declared minimum, so that
# the minimum is tested.
compile 3.2.2 3.15 --group test \
    --exclude-newer 2026-06-15 --exclude-newer-package apache-airflow-providers-common-compat=2026-11-01 \
    --exclude-newer-package pytest=2026-11-01
compile 3.1.8 3.14 --group test \
    --exclude-newer 2026-04-01 --exclude-newer-package apache-airflow-providers-common-compat=2026-11-01 \
    --exclude-newer-package pytest=2026-11-01
compile 3.1.0 3.14 --group test --resolution lowest-direct \
    --exclude-newer 2025-10-01 --exclude-newer-package apache-airflow-providers-common-compat=2026-11-01
