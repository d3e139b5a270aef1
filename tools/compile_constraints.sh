#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Pins everything that development and CI install: once for the newest Airflow, once for the oldest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

compile() {
    local airflow=$1 pins
    shift
    echo "Pinning for Airflow $airflow"
    pins=$(echo "apache-airflow==$airflow" | uv pip compile --quiet --universal --python-version 3.11 \
        --no-annotate --custom-compile-command "make constraints" "$@" pyproject.toml -)
    # Every line would repeat the environments that pyproject.toml limits uv to.
    sed "s/ ; python_full_version < '3.14' and sys_platform != 'win32'\$//" <<<"$pins" \
        >"constraints/airflow-$airflow.txt"
}

mkdir -p constraints
compile 3.3.2 --group dev
# 3.1.0 breaks on dependencies that came long after it (structlog 25.5), so it gets those of its days. The
# package's own dependencies are at their declared minimum: that makes the minimum a tested one.
compile 3.1.0 --group test --resolution lowest-direct \
    --exclude-newer 2025-10-01 --exclude-newer-package apache-airflow-providers-common-compat=2026-11-01
