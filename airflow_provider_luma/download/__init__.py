# SPDX-License-Identifier: Apache-2.0
"""
Download the files of Luma tasks: complete, verified, and safe against hostile URLs. Independent of Airflow.

:class:`~airflow_provider_luma.download.downloader.Downloader` downloads the files of many tasks into a
:class:`~airflow_provider_luma.download.file_store.FileStore`. Below it, each module has one concern:
``addresses`` decides which hosts are allowed, ``transport`` connects to them, ``resumable`` receives the
bytes of one file, ``fetcher`` retries and resumes, ``formats`` detects the type, and ``file_store`` makes
files appear only when they are complete.
"""
