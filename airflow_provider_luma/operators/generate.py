# SPDX-License-Identifier: Apache-2.0
"""Submit generations and extensions, each at most once, and wait for their videos if wanted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from airflow_provider_luma.client.requests import ExtensionRequest, GenerationRequest, Request, read_request
from airflow_provider_luma.exceptions import LumaConfigError
from airflow_provider_luma.operators.base import LumaSubmitOperator
from airflow_provider_luma.submitting.submission import Submission
from airflow_provider_luma.submitting.submitter import SubmitPolicy
from airflow_provider_luma.task_ids import check_task_ids, parse_task_ids
from airflow_provider_luma.templates import is_literal
from airflow_provider_luma.text import shorten, shorten_list
from airflow_provider_luma.waiting.progress import WaitPolicy

if TYPE_CHECKING:
    from airflow.sdk import XComArg

    from airflow_provider_luma.submitting.submitter import Submitter


class LumaGenerateVideoOperator(LumaSubmitOperator):
    """
    Submit one video, at most once, and return its id; or wait for it and return its artifact record.

    A submit costs money, and the relay doesn't recognise a repeated one. On Airflow 3.3 and newer this
    operator writes what it is about to send and what the outcome was, so a retry after any crash resumes with
    the same video. If it is unknown whether the relay accepted the request (after a read timeout, a dropped
    connection or a worker that died during the submit), the task fails without using its retries and says
    what to do. Retries are therefore always safe here: give the task some.

    Two things submit another video, and the log says so. A *clear* of an ended task does; a clear of a
    running or deferred task counts as a retry. Changed inputs do: beware of templates that render differently
    in each try, such as a presigned URL.

    Airflow before 3.3 keeps no state between tries. There, ``retries`` apply to passing refusals within the
    first try; any later try, after a crash or a clear, fails instead of being billed twice.

    Refusals aren't billed. Passing ones (the relay is busy or has no channel for the model) are retried
    within the task's ``retries``, no sooner than the relay asks; others fail at once with the relay's words.

    Returns the id; with ``wait_for_completion`` the record of
    :class:`~airflow_provider_luma.operators.artifacts.LumaFetchArtifactsOperator`. Pushes ``luma_tasks``,
    ``{"index", "prompt", "submitted_at"}`` by id, as soon as the id is known.

    :param prompt: What to generate, 3 to 5000 characters. (templated)
    :param model_name: For example ``ray-v2``. (templated, like all fields of the request)
    :param duration: ``"5s"`` on most relays, ``"5"`` on some.
    :param resolution: ``540p``, ``720p`` or ``1080p``.
    :param aspect_ratio: For example ``16:9``.
    :param image_url: First frame: a URL or base64 data.
    :param image_end_url: Last frame: a URL or base64 data. Not together with *loop*.
    :param loop: Whether the end of the video meets its beginning.
    :param expand_prompt: Whether the relay enriches the prompt.
    :param notify_hook: URL that the relay calls when the Luma task changes.
    :param extra_fields: Further fields of the body, sent unchanged and unchecked; they override the others.
    :param luma_conn_id: Id of the Airflow connection. (templated)
    :param on_ambiguous: What to do if it is unknown whether the relay accepted the request: ``fail``, or
        ``resubmit`` it with the next retry, which may be billed twice.
    :param on_clear: What a *clear* of the ended task does (Airflow 3.3 and newer): ``restart`` submits
        everything again; ``resume`` keeps what has an id and submits only what has none, such as refused
        requests and the rest of a list after the quota was used up.
    :param wait_for_completion: Whether to wait until the video is completed.
    :param deferrable: Whether to wait in the triggerer instead of a worker. Default: Airflow's
        ``[operators] default_deferrable``.
    :param poll_interval: Seconds between polls while waiting.
    :param timeout: Seconds to wait; then the task fails, and a retry waits for the same video.
    :param missing_polls: See :class:`~airflow_provider_luma.sensors.luma.LumaTaskSensor`.
    """

    template_fields: Sequence[str] = (*GenerationRequest.__struct_fields__, "luma_conn_id")

    def __init__(
        self,
        *,
        prompt: str | XComArg,
        model_name: str | XComArg | None = None,
        duration: str | XComArg | None = None,
        resolution: str | XComArg | None = None,
        aspect_ratio: str | XComArg | None = None,
        image_url: str | XComArg | None = None,
        image_end_url: str | XComArg | None = None,
        loop: bool | str | XComArg | None = None,
        expand_prompt: bool | str | XComArg | None = None,
        notify_hook: str | XComArg | None = None,
        extra_fields: Mapping[str, Any] | XComArg | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.prompt = prompt
        self.model_name = model_name
        self.duration = duration
        self.resolution = resolution
        self.aspect_ratio = aspect_ratio
        self.image_url = image_url
        self.image_end_url = image_end_url
        self.loop = loop
        self.expand_prompt = expand_prompt
        self.notify_hook = notify_hook
        self.extra_fields = extra_fields
        _check_literals(_fields_of(self, GenerationRequest), GenerationRequest)

    def _submissions(self) -> list[Submission]:
        return [Submission(read_request(GenerationRequest, _fields_of(self, GenerationRequest)))]

    def _result(self, values: Sequence[Any]) -> Any:
        return values[0]


class LumaGenerateVideosOperator(LumaSubmitOperator):
    """
    Submit a list of videos in one task, each at most once, and return their ids in the order of the list.

    What :class:`LumaGenerateVideoOperator` says about crashes, retries and money holds for each request: a
    retry resumes with the first one that was not sent. If the outcome of a request is unknown, or the relay
    refuses the key or its quota, nothing more is sent and the task says what was submitted. Requests are
    recognised by what they ask for and not by their place, so the order of the list may change.

    Returns the ids of the submitted videos; with ``wait_for_completion`` their artifact records. Pushes
    ``luma_tasks``, ``{"index", "prompt", "submitted_at"}`` by id, while the ids become known; ``refused``, a
    list of ``{"index", "prompt", "reason"}``; and after a wait ``failed``, the reasons by id.

    :param requests: The requests: dictionaries with ``prompt`` and any other field that
        :class:`LumaGenerateVideoOperator` takes. (templated)
    :param max_failed: How many requests may be refused, or videos fail, before the task does; ``None``
        means any number.
    :param max_concurrency: How many submits may be in progress at the same time.
    :param submit_interval: Seconds between the starts of two submits, at least; common plans allow about 20
        a minute.
    :param luma_conn_id: See :class:`LumaGenerateVideoOperator`, as for all further parameters.
    """

    template_fields: Sequence[str] = ("requests", "luma_conn_id")

    def __init__(
        self,
        *,
        requests: Sequence[Mapping[str, Any]] | str | XComArg,
        max_failed: int | None = 0,
        max_concurrency: int = 1,
        submit_interval: float = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        # Only for its checks.
        SubmitPolicy(max_failed=max_failed, max_concurrency=max_concurrency, submit_interval=submit_interval)
        self.max_failed = max_failed
        self.max_concurrency = max_concurrency
        self.submit_interval = submit_interval
        self.requests = requests
        if isinstance(requests, list | tuple):
            for number, request in enumerate(requests):
                _check_literals(request, GenerationRequest, where=f"requests[{number}]")

    def _submit_policy(self) -> SubmitPolicy:
        return SubmitPolicy(
            on_ambiguous=self.on_ambiguous,
            max_failed=self.max_failed,
            max_concurrency=self.max_concurrency,
            submit_interval=self.submit_interval,
        )

    def _wait_policy(self, refused: int) -> WaitPolicy:
        left = None if self.max_failed is None else self.max_failed - refused
        return WaitPolicy(max_failed=left, missing_polls=self.missing_polls)

    def _submissions(self) -> list[Submission]:
        requests: Any = self.requests
        if isinstance(requests, str):
            try:
                requests = msgspec.json.decode(requests)
            except msgspec.DecodeError as error:
                raise LumaConfigError(
                    "requests must be a list of requests, or a template that renders to one as JSON, such as "
                    f'[{{"prompt": "…"}}]; got {shorten(requests)!r}, which isn\'t JSON ({error}).'
                ) from error
        if isinstance(requests, Mapping) or not isinstance(requests, Sequence):
            raise LumaConfigError(
                'requests must be a list of requests, such as [{"prompt": "…"}]; '
                f"got {shorten(repr(requests))}."
            )
        return [
            Submission(read_request(GenerationRequest, each, where=f"requests[{number}]"))
            for number, each in enumerate(requests)
        ]

    def _refused(self, submitter: Submitter, submissions: Sequence[Submission]) -> dict[str, Any]:
        return {
            "refused": [
                {"index": number, "prompt": submissions[number].short_prompt, "reason": reason}
                for number, reason in sorted(submitter.refused.items())
            ]
        }

    def _result(self, values: Sequence[Any]) -> Any:
        return list(values)


class LumaExtendVideoOperator(LumaSubmitOperator):
    """
    Submit the continuation of a completed video, at most once, and return the new Luma task's id.

    What :class:`LumaGenerateVideoOperator` says about crashes, retries, money and results holds here too.

    :param luma_task_id: Id of the completed Luma task whose video to continue. (templated)
    :param prompt: How to continue it, 3 to 5000 characters. (templated, like all fields of the request)
    :param image_url: First frame: a URL or base64 data.
    :param image_end_url: Last frame: a URL or base64 data.
    :param expand_prompt: Whether the relay enriches the prompt.
    :param notify_hook: URL that the relay calls when the Luma task changes.
    :param extra_fields: Further fields of the body, sent unchanged and unchecked; they override the others.
    :param luma_conn_id: See :class:`LumaGenerateVideoOperator`, as for all further parameters.
    """

    template_fields: Sequence[str] = ("luma_task_id", *ExtensionRequest.__struct_fields__, "luma_conn_id")

    def __init__(
        self,
        *,
        luma_task_id: str | XComArg,
        prompt: str | XComArg,
        image_url: str | XComArg | None = None,
        image_end_url: str | XComArg | None = None,
        expand_prompt: bool | str | XComArg | None = None,
        notify_hook: str | XComArg | None = None,
        extra_fields: Mapping[str, Any] | XComArg | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_task_ids(luma_task_id, parameter="luma_task_id")
        self.luma_task_id = luma_task_id
        self.prompt = prompt
        self.image_url = image_url
        self.image_end_url = image_end_url
        self.expand_prompt = expand_prompt
        self.notify_hook = notify_hook
        self.extra_fields = extra_fields
        _check_literals(_fields_of(self, ExtensionRequest), ExtensionRequest)

    def _submissions(self) -> list[Submission]:
        ids = parse_task_ids(self.luma_task_id, parameter="luma_task_id")
        if len(ids) != 1:
            raise LumaConfigError(
                f"luma_task_id must be one id; got {shorten_list(ids) or 'none'}. Use "
                ".expand(luma_task_id=[…]) to map this task over several ids."
            )
        request = read_request(ExtensionRequest, _fields_of(self, ExtensionRequest))
        return [Submission(request, extends=ids[0])]

    def _result(self, values: Sequence[Any]) -> Any:
        return values[0]


def _fields_of(operator: LumaSubmitOperator, kind: type[msgspec.Struct]) -> dict[str, Any]:
    """Return an operator's attributes that are fields of a request."""
    return {name: getattr(operator, name) for name in kind.__struct_fields__}


def _check_literals(given: Any, kind: type[Request], *, where: str = "") -> None:
    """Check a request where the Dag is parsed, unless it has to be rendered first."""
    if is_literal(given):
        read_request(kind, given, where=where)
