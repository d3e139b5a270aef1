# SPDX-License-Identifier: Apache-2.0
"""
Steering over HTTP, under ``/sandbox/`` and without a key.

A method of ``Sandbox`` that is decorated with :func:`verb` runs on a relay in this process, is served as a
route, and is sent to that route when the relay is in another process.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from types import GenericAlias, NoneType
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, get_type_hints

import msgspec
import requests
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

_P = ParamSpec("_P")
_T = TypeVar("_T")


class Steered(Protocol):
    """What has verbs; ``remote`` is None when its relay is in this process."""

    remote: Remote | None


_S = TypeVar("_S", bound=Steered)


class Verb:
    """
    The HTTP form of a method: its parameters are the body or query, its result is the answer.

    A single parameter that is a struct stands for the whole body. With ``key``, the answer is an object that
    holds the result in that field.
    """

    def __init__(self, method: str, path: str, act: Callable[..., Any], key: str | None) -> None:
        self.method = method
        self.path = path
        self._act = act
        self._key = key

    @functools.cached_property
    def _result(self) -> Any:
        result = get_type_hints(self._act)["return"]
        return GenericAlias(dict, (str, result)) if self._key else result

    @functools.cached_property
    def _body(self) -> tuple[type[msgspec.Struct], bool]:
        hints = get_type_hints(self._act)
        parameters = list(inspect.signature(self._act).parameters.values())[1:]
        first = hints[parameters[0].name] if parameters else None
        if inspect.isclass(first) and issubclass(first, msgspec.Struct):
            return first, True
        fields = [
            (each.name, hints[each.name], *(() if each.default is each.empty else (each.default,)))
            for each in parameters
        ]
        return msgspec.defstruct(self.path, fields, forbid_unknown_fields=True, omit_defaults=True), False

    def pack(self, *args: Any, **kwargs: Any) -> msgspec.Struct:
        """Return the arguments of a call as one struct."""
        body, is_parameter = self._body
        return args[0] if is_parameter else body(*args, **kwargs)

    def decode(self, answer: bytes) -> Any:
        """Return the result that an answer holds."""
        if self._result is NoneType:
            return None
        value = msgspec.json.decode(answer, type=self._result)
        return value[self._key] if self._key else value

    async def run(self, steered: Steered, request: Request) -> Any:
        """Call the method with the arguments of a request; return the answer."""
        body, is_parameter = self._body
        if self.method == "GET":
            given = msgspec.convert(dict(request.query_params), body, strict=False)
        else:
            given = msgspec.json.decode(await request.body() or b"{}", type=body)
        result = self._act(steered, *((given,) if is_parameter else msgspec.structs.astuple(given)))
        if self._key:
            return {self._key: result}
        return {} if result is None else result


VERBS: list[Verb] = []


def verb(
    method: str, path: str, *, key: str | None = None
) -> Callable[[Callable[Concatenate[_S, _P], _T]], Callable[Concatenate[_S, _P], _T]]:
    """
    Make a method a verb that steers a sandbox from anywhere.

    :param method: HTTP method of its route.
    :param path: Path of its route below ``/sandbox/``.
    :param key: The field of the answer that holds the result. None: the result is the answer.
    """

    def decorate(act: Callable[Concatenate[_S, _P], _T]) -> Callable[Concatenate[_S, _P], _T]:
        form = Verb(method, path, act, key)
        VERBS.append(form)

        @functools.wraps(act)
        def steer(self: _S, /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
            if self.remote is None:
                return act(self, *args, **kwargs)
            return self.remote.send(form, form.pack(*args, **kwargs))  # type: ignore[no-any-return]

        return steer

    return decorate


class Remote:
    """
    Send verbs to a sandbox in another process.

    :param root_url: Where it listens, without a path.
    """

    def __init__(self, root_url: str) -> None:
        self._root_url = root_url
        self._session = requests.Session()
        self._session.trust_env = False

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def send(self, form: Verb, body: msgspec.Struct) -> Any:
        """
        Send a verb; return its result.

        :raises KeyError: The relay has no such task.
        :raises ValueError: An argument is wrong.
        """
        given: dict[str, Any] = {"data": msgspec.json.encode(body)}
        if form.method == "GET":
            given = {"params": msgspec.to_builtins(body)}
        url = f"{self._root_url}/sandbox/{form.path}"
        response = self._session.request(form.method, url, timeout=60, **given)
        if response.status_code == 404:
            raise KeyError(response.text)
        if response.status_code != 200:
            raise ValueError(response.text)
        return form.decode(response.content)


def control_routes(steered: Steered) -> list[Route]:
    """Return the routes that steer ``steered``."""
    return [Route(f"/sandbox/{form.path}", _endpoint(form, steered), methods=[form.method]) for form in VERBS]


def _endpoint(form: Verb, steered: Steered) -> Callable[[Request], Any]:
    async def serve(request: Request) -> Response:
        try:
            status, value = 200, await form.run(steered, request)
        except KeyError as error:
            status, value = 404, {"error": f"There is no task {error}."}
        except (msgspec.MsgspecError, TypeError, ValueError) as error:
            status, value = 400, {"error": str(error)}
        return Response(msgspec.json.encode(value), status, media_type="application/json")

    return serve
