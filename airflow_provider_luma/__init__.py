# SPDX-License-Identifier: Apache-2.0
"""Luma Dream Machine video generation for Apache Airflow."""

from __future__ import annotations

__version__ = "0.1.0"
