# SPDX-License-Identifier: Apache-2.0
"""Serve the gallery's static files, with headers that confine what the page may do."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from starlette.staticfiles import StaticFiles

if TYPE_CHECKING:
    from starlette.responses import Response
    from starlette.types import Scope

FOLDER = Path(__file__).parent / "www"

HEADERS = {
    # Media come from wherever the relay keeps them; everything else from this server or from nowhere.
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src 'self' https: http:; media-src https: http:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
    ),
    "x-content-type-options": "nosniff",
    # Media hosts need not know which Dag a video is for.
    "referrer-policy": "no-referrer",
    # The files change with the provider's version: ask each time, and be answered 304.
    "cache-control": "no-cache",
}


class GalleryFiles(StaticFiles):
    """The gallery's files and nothing else; GET and HEAD only."""

    def __init__(self) -> None:
        super().__init__(directory=FOLDER, html=True)

    async def get_response(self, path: str, scope: Scope) -> Response:
        """Answer with a file."""
        response = await super().get_response(path, scope)
        response.headers.update(HEADERS)
        return response
