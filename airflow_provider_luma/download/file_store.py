# SPDX-License-Identifier: Apache-2.0
"""Store files on any fsspec file system, and never a part of a file under its final name."""

from __future__ import annotations

import contextlib
import errno
import os
import posixpath
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final

from fsspec import AbstractFileSystem
from fsspec.spec import AbstractBufferedFile

from airflow_provider_luma.exceptions import LumaStorageError
from airflow_provider_luma.text import clean_text

_BLOCK: Final = 8 * 1024 * 1024
_PIECE: Final = 1024 * 1024
# Linux takes larger writes into large pages, and finding those can cost more than the copy.
_WRITE: Final = 64 * 1024

# Object stores whose files appear complete when they are closed, or not at all: S3, Google Cloud Storage and
# Azure Blob Storage. Elsewhere a file is written under a temporary name and renamed.
_APPEARS_ON_CLOSE: Final = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az"})

# Errors of file systems that can't synchronise folders, and of folders that may be written but not read.
_CANT_SYNC: Final = frozenset({errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EACCES, errno.EPERM})


class FileStore:
    """
    Store files in a folder of a file system. Safe to share between threads.

    Every error of the file system is raised as ``LumaStorageError``.

    :param fs: The file system.
    :param root: The folder, as the file system names it; created if missing.
    :param label: The folder as users name it; paths in records and errors begin with it.
    :param owner: Id of the writer, in letters and digits: shared by a task and its retries only, so that a
        retry can remove the temporary files of a killed try.
    """

    def __init__(self, fs: AbstractFileSystem, root: str, *, label: str, owner: str) -> None:
        self._fs = fs
        self._root = root.rstrip("/")
        self._label = label.rstrip("/")
        self._owner = owner
        protocols = {fs.protocol} if isinstance(fs.protocol, str) else set(fs.protocol)
        self._renames = _APPEARS_ON_CLOSE.isdisjoint(protocols)
        self._local = "file" in protocols

    def path(self, name: str) -> str:
        """Return the path of a file as users write it."""
        return f"{self._label}/{name}"

    def prepare(self) -> None:
        """Create the folder, and remove the temporary files of an earlier try of the same owner."""
        with self._as_storage_error("prepare", ""):
            self._fs.invalidate_cache()
            if not self._renames:
                return
            self._make_folder(self._root)
            for path in self._fs.ls(self._root, detail=False):
                if posixpath.basename(path).startswith(self._temporary_prefix):
                    self._fs.rm_file(path)

    def size(self, name: str) -> int | None:
        """Return the size of a file in bytes, or None if there is none; a folder of that name is an error."""
        with self._as_storage_error("look for", name):
            try:
                info = self._fs.info(self._full(name))
            except FileNotFoundError:
                return None
            if info["type"] == "directory":
                raise IsADirectoryError("a folder has that name")
            return int(info["size"])

    def read(self, name: str) -> Iterator[bytes]:
        """Yield a file's bytes piece by piece."""
        with (
            self._as_storage_error("read", name),
            self._fs.open(self._full(name), "rb", block_size=_BLOCK) as file,
        ):
            while piece := file.read(_PIECE):
                yield piece

    def create(self, name: str) -> PartialFile:
        """Create a file that appears under its name only when it is committed."""
        final = self._full(name)
        with self._as_storage_error("write", name):
            if not self._renames:
                return PartialFile(self, name, self._fs.open(final, "wb", block_size=_BLOCK), None)
            # All in one folder, so that the next try finds them whatever folder the file is moved to.
            temporary = f"{self._root}/{self._temporary_prefix}{secrets.token_hex(8)}.part"
            return PartialFile(self, name, self._fs.open(temporary, "wb"), temporary)

    @property
    def _temporary_prefix(self) -> str:
        return f".luma-{self._owner}-"

    def _full(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _rename(self, temporary: str, name: str) -> None:
        final = self._full(name)
        folder = posixpath.dirname(final)
        if folder != self._root:
            self._make_folder(folder)
        if self._fs.isdir(final):
            raise IsADirectoryError("a folder has that name")
        try:
            self._fs.mv(temporary, final)
        except OSError:
            # Some stores don't rename over an existing file.
            if not (self._fs.exists(temporary) and self._fs.exists(final)):
                raise
            self._fs.rm_file(final)
            self._fs.mv(temporary, final)
        if self._local:
            _sync_folder(folder)

    def _make_folder(self, folder: str) -> None:
        made = []
        if self._local:
            path = folder
            while path and not Path(path).is_dir():
                made.append(path)
                path = posixpath.dirname(path)
        self._fs.makedirs(folder, exist_ok=True)
        for path in made:
            _sync_folder(posixpath.dirname(path))

    def _close(self, file: Any) -> None:
        """Close a written file. Without fsync, a power failure after the rename could leave an empty one."""
        if self._local:
            file.flush()
            os.fsync(file.fileno())
        file.close()

    @contextmanager
    def _as_storage_error(self, what: str, name: str) -> Iterator[None]:
        """Raise any error of a store's library as one type of error."""
        try:
            yield
        except LumaStorageError:
            raise
        except Exception as error:
            path = self.path(name) if name else self._label
            raise LumaStorageError(
                f"Can't {what} {path}: {clean_text(str(error)) or type(error).__name__}. Check the "
                "destination's free space, permissions and connection."
            ) from error


class PartialFile:
    """Write a file, which must then be committed or discarded; errors are those of its store."""

    def __init__(self, store: FileStore, name: str, file: IO[bytes], temporary: str | None) -> None:
        self._store = store
        self._file: Any = file
        self._temporary = temporary
        self.name = name

    def write(self, chunk: bytes | memoryview) -> None:
        """Append bytes."""
        with self._store._as_storage_error("write", self.name):
            for start in range(0, len(chunk), _WRITE):
                self._file.write(chunk[start : start + _WRITE])

    def commit(self) -> None:
        """Make the file appear under its name, replacing an existing one; if that fails, discard it."""
        try:
            with self._store._as_storage_error("commit", self.name):
                self._store._close(self._file)
                if self._temporary is not None:
                    self._store._rename(self._temporary, self.name)
        except BaseException:
            self.discard()
            raise

    def discard(self) -> None:
        """Remove what was written. What can't be removed is left to the next try or to the store."""
        with contextlib.suppress(Exception):
            if self._temporary is not None:
                try:
                    self._file.close()
                finally:
                    self._store._fs.rm_file(self._temporary)
            elif isinstance(self._file, AbstractBufferedFile):
                # Closing it, as the garbage collector does, would make the part appear as a file.
                self._file.closed = True
                self._file.discard()


def _sync_folder(path: str) -> None:
    """Write a folder's entries to the disk, so that a power failure doesn't undo a rename."""
    try:
        descriptor = os.open(path or "/", os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in _CANT_SYNC:
            raise
