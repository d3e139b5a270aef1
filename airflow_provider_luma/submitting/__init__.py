# SPDX-License-Identifier: Apache-2.0
"""Submit requests, each at most once. Knows nothing of Airflow."""
