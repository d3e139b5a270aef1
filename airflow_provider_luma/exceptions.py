# SPDX-License-Identifier: Apache-2.0
"""
Define the errors of this provider: one family.

Every message says what happened, to which ids, what the relay returned and what to do.
:attr:`LumaError.retryable` says whether a retry can help.
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
]


class LumaError(Exception):
    """
    Base class of every error of this provider.

    :param message: What happened and what to do.
    :param task_ids: Ids of the Luma tasks that it concerns, as far as they are known.
    """

    #: Whether the same call can succeed later although nothing was changed.
    retryable: bool = False

    def __init__(self, message: str, *, task_ids: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.task_ids = tuple(task_ids)

    def __reduce__(self) -> tuple[object, ...]:
        # The default would call __init__ without the keyword-only arguments, which are in __dict__.
        return _rebuild, (type(self), self.args, self.__dict__)


def _rebuild(kind: type[LumaError], args: tuple[object, ...], state: dict[str, object]) -> LumaError:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class LumaConfigError(LumaError, ValueError):
    """
    A parameter or a connection field has a value that isn't allowed.

    The message names the parameter, its value and the values that are allowed.
    """


class LumaConnectionError(LumaError):
    """
    The relay could not be reached, or the connection broke before the answer was complete.

    :param unsent: Whether it is certain that the request never left this machine.
    """

    retryable = True

    def __init__(self, message: str, *, unsent: bool = False, task_ids: Sequence[str] = ()) -> None:
        super().__init__(message, task_ids=task_ids)
        self.unsent = unsent


class LumaApiError(LumaError):
    """
    The relay answered with an error.

    :param status: The HTTP status of the answer.
    :param code: The relay's own error code, if it has one.
    :param relay_message: The relay's message, shortened and without the key.
    :param request_id: The relay's id of the request, for its support.
    :param retry_after: Seconds that the relay asks to wait, if it does.
    :param well_formed: Whether the body is the relay's own error document, not a proxy's page.
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
    """The API key is valid but not allowed to do this: its group, address or model is denied (HTTP 403)."""


class LumaQuotaError(LumaApiError):
    """The quota or the balance of the API key is used up."""


class LumaRequestError(LumaApiError):
    """The relay refuses the request itself; the same request will be refused again."""


class LumaTaskNotFoundError(LumaRequestError):
    """The relay doesn't know the task id."""


class LumaEndpointError(LumaApiError):
    """A server answered, but it has no Luma API: the connection's host is wrong."""


class LumaBusyError(LumaApiError):
    """The relay is overloaded or limits the rate (HTTP 429); ``retry_after`` may say for how long."""

    retryable = True


class LumaServerError(LumaApiError):
    """The relay, its upstream or a proxy in front of it failed (HTTP 5xx)."""

    retryable = True


class LumaModelUnavailableError(LumaServerError):
    """The relay has no channel for the model (code ``model_not_found``): usually its configuration."""


class LumaResponseError(LumaApiError):
    """The answer can't be read: it is HTML, broken JSON, of an unknown shape, or too large."""

    retryable = True


class LumaAmbiguousSubmitError(LumaError):
    """
    It is unknown whether the relay accepted a request: it may be running and billed.

    Don't send the request again without a look at the relay's task list or bill. The original error is the
    ``__cause__``.
    """


class LumaInterruptedError(LumaError):
    """The work was stopped from outside before it was completed; a retry resumes it."""

    retryable = True


class LumaTimeoutError(LumaError):
    """Luma tasks were not completed in time. They keep running at the relay; a retry waits for them again."""

    retryable = True


class LumaMissingArtifactError(LumaError):
    """
    Luma tasks have no URL for an artifact that must exist.

    :param retryable: Whether one may still appear: its task isn't completed, or the URL is late.
    """

    def __init__(self, message: str, *, retryable: bool, task_ids: Sequence[str] = ()) -> None:
        super().__init__(message, task_ids=task_ids)
        self.retryable = retryable


class LumaUnavailableError(LumaError):
    """Too many consecutive polls of the relay failed."""

    retryable = True


class LumaDownloadError(LumaError):
    """
    A file could not be downloaded completely. No part of it was kept.

    :param retryable: Whether a retry can help; downloads are free of charge.
    """

    def __init__(self, message: str, *, retryable: bool, task_ids: Sequence[str] = ()) -> None:
        super().__init__(message, task_ids=task_ids)
        self.retryable = retryable


class LumaUnsafeLinkError(LumaDownloadError):
    """A URL or a redirect leads where downloads are refused, such as into the private network."""

    def __init__(self, message: str, *, task_ids: Sequence[str] = ()) -> None:
        super().__init__(message, retryable=False, task_ids=task_ids)


class LumaStorageError(LumaError):
    """The storage can't be read or written: it is full, forbidden, unreachable, or has lost a value."""

    retryable = True


class LumaFileExistsError(LumaError):
    """The destination of a download exists, and ``on_existing`` is ``fail``."""
