#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Checks that command $1 of Node.js 20 or newer is installed; says how to install it otherwise.
set -euo pipefail

version=$(node -p 'process.versions.node.split(".")[0]' 2>/dev/null || echo 0)
if ((version < 20)) || ! command -v "$1" >/dev/null; then
    echo "$1 of Node.js 20 or newer is needed. Install it: sudo apt-get install nodejs npm (Debian 13 and newer)" >&2
    exit 1
fi
