# SPDX-License-Identifier: Apache-2.0
"""The settings of a sandbox: one definition for Python and for the command line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from airflow_provider_luma.sandbox import media_host

Seconds = Annotated[float, Meta(ge=0)]
Usd = Annotated[float, Meta(ge=0)]
Count = Annotated[int, Meta(ge=1)]


def _help(description: str, **bounds: Any) -> Meta:
    return Meta(description=description, **bounds)


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Configure a sandbox: each field is a keyword of ``LumaSandbox`` and an option of the command line."""

    api_key: Annotated[str, _help("the only key that the relay accepts", min_length=1)] = "sandbox-key"
    dialect: Annotated[
        Literal["bare", "envelope"], _help("shape of the answers: bare tasks, or rows in an envelope")
    ] = "bare"
    prefix: Annotated[
        str, _help("path before /luma and /v1, such as /relay", pattern=r"^(/[A-Za-z0-9._~-]+)*$")
    ] = ""
    pending_seconds: Annotated[Seconds, _help("how long a task is pending")] = 2.0
    processing_seconds: Annotated[Seconds, _help("how long it is then processing")] = 6.0
    visible_after_seconds: Annotated[Seconds, _help("how long queries leave a new task out")] = 0.0
    latency_seconds: Annotated[Seconds, _help("delay of every answer of the API")] = 0.0
    submit_status: Annotated[Literal[200, 201], _help("status of an accepted submit or extend")] = 200
    id_form: Annotated[Literal["uuid", "task", "luma_gen"], _help("form of the ids of new tasks")] = "uuid"
    refused_words: Annotated[tuple[str, ...], _help("words that moderation refuses in a prompt")] = ("nsfw",)
    moderation: Annotated[
        Literal["refuse", "fail"],
        _help("refuse such a prompt with a 400, or accept (and bill) it and let the task fail"),
    ] = "refuse"
    balance_usd: Annotated[
        Usd | None, _help("USD on the key; submits that it doesn't cover get a 403; unlimited if unset")
    ] = None
    price_usd: Annotated[Usd, _help("USD that a submit or extend costs")] = 0.32
    media_base_url: Annotated[
        str | None, _help("what the URLs of files start with instead of the sandbox's own address")
    ] = None
    video_bytes: Annotated[Count | None, _help("size of every video; unset: that of the bare sample")] = None
    links_expire_after: Annotated[
        Seconds | None, _help("sign the URLs of files and refuse them after so many seconds")
    ] = None
    link_uses: Annotated[Count | None, _help("sign the URLs of files and refuse them after so many GETs")] = (
        None
    )
    lapsed_link_status: Annotated[
        Literal[400, 401, 403, 404, 410],
        _help("status with which such a URL is refused; 400 is the ExpiredToken of an S3 store"),
    ] = 403
    max_records: Annotated[
        int, _help("how many of the last calls are recorded; counts are always complete", ge=0)
    ] = 100_000
    seed: Annotated[int, _help("seed of the order in which answers list their tasks")] = 0

    def __post_init__(self) -> None:
        if self.video_bytes is not None:
            media_host.check_video_bytes(self.video_bytes)

    @classmethod
    def of(cls, values: Mapping[str, Any], *, strict: bool = True) -> Settings:
        """
        Check ``values`` and return them as settings.

        :param values: Values by setting.
        :param strict: False also takes numbers as text, as from a command line.
        :raises ValueError: A setting is unknown or its value wrong; it names both and what is right.
        """
        known = {field.name for field in msgspec.structs.fields(cls)}
        if unknown := sorted(set(values) - known):
            raise ValueError(
                f"Unknown setting {', '.join(unknown)}; the settings are {', '.join(sorted(known))}."
            )
        for name, value in values.items():
            try:
                msgspec.convert({name: value}, cls, strict=strict)
            except msgspec.ValidationError as error:
                reason = str(error).partition(" - at ")[0].rstrip(".")
                raise ValueError(f"{name} must be a valid setting; got {value!r}. {reason}.") from None
        return msgspec.convert(dict(values), cls, strict=strict)
