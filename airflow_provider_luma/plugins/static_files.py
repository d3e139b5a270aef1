# SPDX-License-Identifier: Apache-2.0
"""Serve the gallery's static files with headers that restrict what the page can do."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from starlette.staticfiles import StaticFiles

if TYPE_CHECKING:
    from starlette.responses import Response
    from starlette.types import Scope

FOLDER = Path(__file__).parent / "www"

HEADERS = {
    # Media are loaded from any host, because relays store them anywhere; all else only from this server.
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src 'self' https: http:; media-src https: http:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
    ),
    "x-content-type-options": "nosniff",
    # Otherwise media hosts would learn from the referrer which Dag a video belongs to.
    "referrer-policy": "no-referrer",
    # Otherwise browsers would keep the files of an older provider version; unchanged files cost a 304.
    "cache-control": "no-cache",
}


class GalleryFiles(StaticFiles):
    """Serve the gallery's files and nothing else, for GET and HEAD only."""

    def __init__(self) -> None:
        super().__init__(directory=FOLDER, html=True)

    async def get_response(self, path: str, scope: Scope) -> Response:
        """Return a file with the restricting headers."""
        response = await super().get_response(path, scope)
        response.headers.update(HEADERS)
        return response
