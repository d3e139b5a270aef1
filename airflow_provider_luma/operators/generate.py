# SPDX-License-Identifier: Apache-2.0
"""Buy videos: submit generations and extensions, each at most once, and wait for them if wanted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from airflow_provider_luma.client.requests import ExtensionRequest, GenerationRequest, read_request
from airflow_provider_luma.exceptions import LumaConfigError
from airflow_provider_luma.operators.base import LumaSubmitOperator
from airflow_provider_luma.submitting.submission import Submission
from airflow_provider_luma.submitting.submitter import SubmitPolicy
from airflow_provider_luma.task_ids import check_task_ids, parse_task_ids
from airflow_provider_luma.templates import is_literal
from airflow_provider_luma.text import shorten, shorten_list
from airflow_provider_luma.waiting.progress import WaitPolicy

if TYPE_CHECKING:
    from airflow_provider_luma.submitting.submitter import Submitter


class LumaGenerateVideoOperator(LumaSubmitOperator):
    """
    Submit one video, at most once, and return its id; or wait for it and return its artifact record.

    A submit costs money, and the relay can't tell a repeated one. On Airflow 3.3 and newer this operator
    writes down what it is about to send and what came of it, so that a retry after any crash goes on with
    the video that was bought. Where nobody can know whether the relay took the job (a read timeout, a
    dropped connection, a worker that died in that moment) the task fails without using its retries and says
    what to do. So retries are always safe here: give the task some.

    Two things buy another video, and say so in the log. A *clear* of an ended task does; one of a task that
    is running or deferred counts as a retry. Changed inputs do: mind templates that render to something else
    in each try, such as a link that is signed again.

    Airflow before 3.3 keeps nothing between tries. There the ``retries`` serve passing refusals alone, within
    the first try; any later try, after a crash or a clear, fails and says so rather than pay twice.

    What the relay refuses isn't billed: passing refusals (busy, upstream trouble) are retried within the
    task's ``retries``, no sooner than the relay asks for; others fail at once with the relay's words.

    Returns the id; with ``wait_for_completion`` the record of
    :class:`~airflow_provider_luma.operators.artifacts.LumaFetchArtifactsOperator`. Pushes ``luma_tasks``:
    ``{"index", "prompt", "submitted_at"}`` by id, as soon as the id is known.

    :param prompt: What to generate, 3 to 5000 characters. (templated)
    :param model_name: For example ``ray-v2``. (templated, like all fields of the request)
    :param duration: ``"5s"`` on most relays, ``"5"`` on some.
    :param resolution: ``540p``, ``720p`` or ``1080p``.
    :param aspect_ratio: For example ``16:9``.
    :param image_url: First frame: a URL or base64 data.
    :param image_end_url: Last frame: a URL or base64 data. Not together with *loop*.
    :param loop: Make the end meet the beginning.
    :param expand_prompt: Let the relay enrich the prompt.
    :param notify_hook: Address that the relay calls when the task changes.
    :param extra_fields: Further body fields, sent as they are and unchecked; they win over the others.
    :param luma_conn_id: Id of the Airflow connection. (templated)
    :param on_ambiguous: What to do when it is unknown whether the relay took the submission: ``fail``, or
        ``resubmit`` it with the next retry and perhaps pay twice.
    :param on_clear: What a *clear* of the task does: submit everything ``restart``, or ``resume`` with what
        is submitted and send only what has no id: what was refused, and the rest of a list that ended
        because the money ran out (Airflow 3.3 and newer).
    :param wait_for_completion: Whether to wait until the video is there.
    :param deferrable: Whether to wait in the triggerer instead of a worker. Default: Airflow's
        ``[operators] default_deferrable``.
    :param poll_interval: Seconds between polls while waiting.
    :param timeout: Seconds to wait; then the task fails, and a retry waits for the same video.
    :param missing_polls: See :class:`~airflow_provider_luma.sensors.luma.LumaTaskSensor`.
    """

    template_fields: Sequence[str] = (
        "prompt",
        "model_name",
        "duration",
        "resolution",
        "aspect_ratio",
        "image_url",
        "image_end_url",
        "loop",
        "expand_prompt",
        "notify_hook",
        "extra_fields",
        "luma_conn_id",
    )

    def __init__(
        self,
        *,
        prompt: str,
        model_name: str | None = None,
        duration: str | None = None,
        resolution: str | None = None,
        aspect_ratio: str | None = None,
        image_url: str | None = None,
        image_end_url: str | None = None,
        loop: bool | str | None = None,
        expand_prompt: bool | str | None = None,
        notify_hook: str | None = None,
        extra_fields: Mapping[str, Any] | None = None,
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
        given = {name: getattr(self, name) for name in GenerationRequest.__struct_fields__}
        if all(is_literal(value) for value in given.values()):
            read_request(GenerationRequest, given)

    def _submissions(self) -> list[Submission]:
        given = {name: getattr(self, name) for name in GenerationRequest.__struct_fields__}
        return [Submission(read_request(GenerationRequest, given))]

    def _result(self, values: Sequence[Any]) -> Any:
        return values[0]


class LumaGenerateVideosOperator(LumaSubmitOperator):
    """
    Submit a list of videos in one task, each at most once, and return their ids in the order of the list.

    What :class:`LumaGenerateVideoOperator` says of crashes, retries and money holds for each request: a
    retry goes on with the first that was not sent. When it is unknown whether the relay took one of them,
    or when money or key are refused, nothing more is sent and the task says what was and what wasn't.
    Requests are recognised by what they ask for and not by their place, so a list may change its order.

    Returns the ids of the submitted videos; with ``wait_for_completion`` their artifact records. Pushes
    ``luma_tasks``, ``{"index", "prompt", "submitted_at"}`` by id, while the ids become known; ``refused``, a
    list of ``{"index", "prompt", "reason"}``; and after a wait ``failed``, the reasons by id.

    :param requests: The requests: dictionaries with ``prompt`` and any other field that
        :class:`LumaGenerateVideoOperator` takes. (templated)
    :param max_failed: How many requests may be refused, or videos fail, before the task does; ``None``
        means any number.
    :param max_concurrency: How many submits are under way at the same time.
    :param submit_interval: Seconds between two submits, at least; common plans allow about 20 a minute.
    :param luma_conn_id: See :class:`LumaGenerateVideoOperator`, as for all further parameters.
    """

    template_fields: Sequence[str] = ("requests", "luma_conn_id")

    def __init__(
        self,
        *,
        requests: Sequence[Mapping[str, Any]] | str,
        max_failed: int | None = 0,
        max_concurrency: int = 1,
        submit_interval: float = 0,
        **kwargs: Any,
    ) -> None:
        self.max_failed = max_failed
        self.max_concurrency = max_concurrency
        self.submit_interval = submit_interval
        super().__init__(**kwargs)
        self.requests = requests
        if isinstance(requests, list | tuple):
            for number, request in enumerate(requests):
                if is_literal(request):
                    read_request(GenerationRequest, request, where=f"requests[{number}]")

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
                    f"requests is the text {shorten(requests)!r}, which is not JSON ({error}): give a list"
                    ' of requests, or a template that renders to one, such as [{"prompt": "…"}].'
                ) from error
        if isinstance(requests, Mapping) or not isinstance(requests, Sequence):
            raise LumaConfigError(
                f"requests is {shorten(repr(requests))}: give a list of requests, such as "
                '[{"prompt": "…"}].'
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
    Submit the continuation of a completed video, at most once, and return the new task's id.

    What :class:`LumaGenerateVideoOperator` says of crashes, retries, money and results holds here too.

    :param luma_task_id: Id of the completed task whose video goes on. (templated)
    :param prompt: How it goes on, 3 to 5000 characters. (templated, like all fields of the request)
    :param image_url: First frame: a URL or base64 data.
    :param image_end_url: Last frame: a URL or base64 data.
    :param expand_prompt: Let the relay enrich the prompt.
    :param notify_hook: Address that the relay calls when the task changes.
    :param extra_fields: Further body fields, sent as they are and unchecked; they win over the others.
    :param luma_conn_id: See :class:`LumaGenerateVideoOperator`, as for all further parameters.
    """

    template_fields: Sequence[str] = (
        "luma_task_id",
        "prompt",
        "image_url",
        "image_end_url",
        "expand_prompt",
        "notify_hook",
        "extra_fields",
        "luma_conn_id",
    )

    def __init__(
        self,
        *,
        luma_task_id: str,
        prompt: str,
        image_url: str | None = None,
        image_end_url: str | None = None,
        expand_prompt: bool | str | None = None,
        notify_hook: str | None = None,
        extra_fields: Mapping[str, Any] | None = None,
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
        given = {name: getattr(self, name) for name in ExtensionRequest.__struct_fields__}
        if all(is_literal(value) for value in given.values()):
            read_request(ExtensionRequest, given)

    def _submissions(self) -> list[Submission]:
        ids = parse_task_ids(self.luma_task_id, parameter="luma_task_id")
        if len(ids) != 1:
            raise LumaConfigError(
                f"luma_task_id is {shorten_list(ids) or 'empty'}: one id is right. Map this task over several "
                "ids by .expand(luma_task_id=[…])."
            )
        given = {name: getattr(self, name) for name in ExtensionRequest.__struct_fields__}
        return [Submission(read_request(ExtensionRequest, given), extends=ids[0])]

    def _result(self, values: Sequence[Any]) -> Any:
        return values[0]
