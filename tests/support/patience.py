# SPDX-License-Identifier: Apache-2.0
"""How long tests wait for what must come: far longer than the busiest machine takes."""

from __future__ import annotations

PATIENCE = 300.0
"""Seconds. Only a test that is about to fail waits them out."""
