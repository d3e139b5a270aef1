# SPDX-License-Identifier: Apache-2.0
"""Provide local disks that each fail in one way."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

from fsspec.implementations.local import LocalFileSystem


class FullDisk(LocalFileSystem):  # type: ignore[misc]
    """Be full after a number of bytes of a file."""

    cachable = False

    def __init__(self, room: int = 10) -> None:
        super().__init__()
        self._room = room

    def _open(self, path: str, mode: str = "rb", **kwargs: Any) -> Any:
        file = super()._open(path, mode, **kwargs)
        if "w" in mode:
            file.write = lambda chunk: self._write(file, chunk)
        return file

    def _write(self, file: Any, chunk: bytes) -> int:
        if file.f.tell() + len(chunk) > self._room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return int(file.f.write(chunk))


class NoRename(LocalFileSystem):  # type: ignore[misc]
    """Fail at the last moment, the rename."""

    cachable = False

    def mv(self, *args: Any, **kwargs: Any) -> None:
        raise PermissionError(errno.EACCES, "the quota of renames is used up")


class NoRenameOver(LocalFileSystem):  # type: ignore[misc]
    """Rename only to new names, like HDFS."""

    cachable = False

    def mv(self, path1: str, path2: str, **kwargs: Any) -> None:
        if Path(path2).exists():
            raise FileExistsError(errno.EEXIST, path2)
        super().mv(path1, path2, **kwargs)
