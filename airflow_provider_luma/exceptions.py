# SPDX-License-Identifier: Apache-2.0
"""
The one family of errors that this provider raises.

Every error says what happened, to which ids, what the relay answered and what to do next, and
carries :attr:`LumaError.retryable`: whether doing the same again later can help.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = [
    "LumaAmbiguousSubmitError",
    "LumaApiError",
    "LumaAuthError",
    "LumaBusyError",
    "LumaConfigError",
    "LumaConnectionError",
    "LumaDownloadError",
    "LumaEndpointError",
    "LumaError",
    "LumaFileExistsError",
    "LumaForbiddenError",
    "LumaInterruptedError",
    "LumaMissingArtifactError",
    "LumaModelUnavailableError",
    "LumaQuotaError",
    "LumaRequestError",
    "LumaResponseError",
    "LumaServerError",
    "LumaStorageError",
    "LumaTaskNotFoundError",
    "LumaTimeoutError",
    "LumaUnavailableError",
    "LumaUnsafeLinkError",
    "shorten_ids",
]


def shorten_ids(ids: Sequence[str], limit: int = 10, *, separator: str = ", ") -> str:
    """
    Join ids for a message, naming the first *limit* and counting the rest.

    :param ids: The ids to name, each perhaps with a remark.
    :param limit: How many to name before the rest is only counted.
    :param separator: What to put between them.
    """
    named = separator.join(ids[:limit])
    return f"{named} and {len(ids) - limit} more" if len(ids) > limit else named


class LumaError(Exception):
    """
    Base class of every error of this provider.

    :param message: What happened and what to do next.
    :param task_ids: The Luma task ids that are concerned, as far as they are known.
    """

    #: Whether the same call can succeed later without anyone changing anything.
    retryable: bool = False

    def __init__(self, message: str, *, task_ids: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.task_ids = tuple(task_ids)

    def __reduce__(self) -> tuple[object, ...]:
        # The keyword-only arguments live in __dict__; the default would call __init__ without them.
        return _rebuild, (type(self), self.args, self.__dict__)


def _rebuild(kind: type[LumaError], args: tuple[object, ...], state: dict[str, object]) -> LumaError:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class LumaConfigError(LumaError, ValueError):
    """
    A parameter or a connection field is unusable.

    The message names the parameter, its value and what would be right.
    """


class LumaConnectionError(LumaError):
    """
    The relay could not be reached, or the connection broke before a whole answer had arrived.

    :param unsent: True when it is certain that the request never left this machine.
    """

    retryable = True

    def __init__(self, message: str, *, unsent: bool = False, task_ids: Sequence[str] = ()) -> None:
        super().__init__(message, task_ids=task_ids)
        self.unsent = unsent


class LumaApiError(LumaError):
    """
    The relay answered, and its answer is an error.

    :param status: The HTTP status of the answer.
    :param code: The relay's own error code, when it gave one.
    :param relay_message: The relay's own words, cut to a sane length and free of the key.
    :param request_id: The relay's id of the request, to quote to its support.
    :param retry_after: Seconds that the relay asks to wait, when it does.
    :param well_formed: Whether the body is an error document of the relay, not a proxy's page.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int,
        code: str = "",
        relay_message: str = "",
        request_id: str | None = None,
        retry_after: float | None = None,
        well_formed: bool = False,
        task_ids: Sequence[str] = (),
    ) -> None:
        super().__init__(message, task_ids=task_ids)
        self.status = status
        self.code = code
        self.relay_message = relay_message
        self.request_id = request_id
        self.retry_after = retry_after
        self.well_formed = well_formed


class LumaAuthError(LumaApiError):
    """The relay doesn't accept the API key (HTTP 401)."""


class LumaForbiddenError(LumaApiError):
    """The key is valid but may not do this: its group, address or model is denied (HTTP 403)."""


class LumaQuotaError(LumaApiError):
    """The money or the quota behind the key is used up."""


class LumaRequestError(LumaApiError):
    """The relay refuses the request as such; sending it again unchanged is useless."""


class LumaTaskNotFoundError(LumaRequestError):
    """The relay doesn't know the task id."""


class LumaEndpointError(LumaApiError):
    """There is something at the address, but not the Luma API: the connection's host is wrong."""


class LumaBusyError(LumaApiError):
    """The relay is saturated or limits the rate (HTTP 429); ``retry_after`` may say how long."""

    retryable = True


class LumaServerError(LumaApiError):
    """The relay, its upstream or a proxy in front of it failed (HTTP 5xx)."""

    retryable = True


class LumaModelUnavailableError(LumaServerError):
    """The relay has no channel for the model (code ``model_not_found``): usually its configuration."""


class LumaResponseError(LumaApiError):
    """The answer can't be understood: HTML, broken JSON, unknown shape, or too large."""

    retryable = True


class LumaAmbiguousSubmitError(LumaError):
    """
    A submit may or may not have been taken: the job can be running and billed.

    Never send the request again by itself. Look at the relay's own task list or bill first.
    The original trouble is the ``__cause__``.
    """


class LumaInterruptedError(LumaError):
    """The work was stopped from outside before it was done; a retry goes on with it."""

    retryable = True


class LumaTimeoutError(LumaError):
    """Luma tasks were not finished in time. They go on at the relay, and a retry waits for them again."""

    retryable = True


class LumaMissingArtifactError(LumaError):
    """
    Tasks have no URL for an artifact that must exist.

    :param retryable: Whether one of them can still come: it isn't finished, or its URL is late.
    """

    def __init__(self, message: str, *, retryable: bool, task_ids: Sequence[str] = ()) -> None:
        super().__init__(message, task_ids=task_ids)
        self.retryable = retryable


class LumaUnavailableError(LumaError):
    """The relay could not be asked many times in a row, so that waiting for it was given up."""

    retryable = True


class LumaDownloadError(LumaError):
    """
    A file could not be fetched whole from where the relay keeps it. Nothing of it was kept.

    :param retryable: Whether trying again can help; downloads are free of charge.
    """

    def __init__(self, message: str, *, retryable: bool, task_ids: Sequence[str] = ()) -> None:
        super().__init__(message, task_ids=task_ids)
        self.retryable = retryable


class LumaUnsafeLinkError(LumaDownloadError):
    """A link or a redirect leads where artifacts are not fetched from, such as into the private network."""

    def __init__(self, message: str, *, task_ids: Sequence[str] = ()) -> None:
        super().__init__(message, retryable=False, task_ids=task_ids)


class LumaStorageError(LumaError):
    """The place where files are to be kept can't be read or written: full, forbidden or out of reach."""

    retryable = True


class LumaFileExistsError(LumaError):
    """A file is already where one was to be written, and ``on_existing`` is ``fail``."""
