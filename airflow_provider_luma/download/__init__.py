# SPDX-License-Identifier: Apache-2.0
"""
Keeping the files of Luma tasks: whole, verified, and safe against hostile links. Nothing here knows Airflow.

:class:`~airflow_provider_luma.download.downloader.Downloader` downloads the files of many tasks into a
:class:`~airflow_provider_luma.download.file_store.FileStore`. Below it, each module has one concern:
``addresses`` decides which hosts are allowed, ``transport`` connects to them, ``resumable`` receives the
bytes of one file, ``fetcher`` resumes a download that breaks off, ``formats`` detects the type, and
``file_store`` makes files appear whole.
"""
