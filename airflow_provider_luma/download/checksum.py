# SPDX-License-Identifier: Apache-2.0
"""Compute SHA-256 in parallel with receiving."""

from __future__ import annotations

import hashlib
import threading
from queue import SimpleQueue
from typing import Final

_BUFFERS: Final = 4
_BUFFER_BYTES: Final = 512 * 1024


class BackgroundSha256:
    """
    Compute SHA-256 in a thread of its own, while its single caller receives and stores the next bytes.

    Bytes travel in four buffers that are reused, so that nothing is allocated or copied for them.
    """

    def __init__(self) -> None:
        self._filled: SimpleQueue[tuple[bytearray, int] | None] = SimpleQueue()
        self._free: SimpleQueue[bytearray] = SimpleQueue()
        for _ in range(_BUFFERS):
            self._free.put(bytearray(_BUFFER_BYTES))
        self._lent: bytearray | None = None
        self._digest = hashlib.sha256()
        self._thread = threading.Thread(target=self._run, name="luma-sha256", daemon=True)
        self._thread.start()

    def buffer(self) -> bytearray:
        """Return the buffer to fill next; wait while all of them are still to be hashed."""
        if self._lent is None:
            self._lent = self._free.get()
        return self._lent

    def update(self, length: int) -> None:
        """Hash the first *length* bytes of the buffer. It stays readable until :meth:`buffer` is called."""
        self._filled.put((self.buffer(), length))
        self._lent = None

    def restart(self) -> None:
        """Forget all bytes so far."""
        self._finish()
        self._digest = hashlib.sha256()

    def hexdigest(self) -> str:
        """Return the digest of all bytes since the last restart."""
        self._finish()
        return self._digest.hexdigest()

    def close(self) -> None:
        """Stop the thread."""
        self._filled.put(None)
        self._thread.join()

    def _finish(self) -> None:
        """Wait until everything is hashed: then all buffers but the one lent out are free."""
        for buffer in [self._free.get() for _ in range(_BUFFERS - (self._lent is not None))]:
            self._free.put(buffer)

    def _run(self) -> None:
        while (item := self._filled.get()) is not None:
            buffer, length = item
            with memoryview(buffer) as whole, whole[:length] as part:
                self._digest.update(part)
            self._free.put(buffer)
