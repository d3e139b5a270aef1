# SPDX-License-Identifier: Apache-2.0
"""
Steering over HTTP, under ``/sandbox/`` and without a key.

A method of ``Sandbox`` that is decorated with :func:`verb` runs on a relay in this process, is served as a
route, and is sent to that route when the relay is in another process.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
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
    """The HTTP form of a method: its parameters are the body or query, its result is the answer."""

    def __init__(self, method: str, path: str, act: Callable[..., Any], key: str | None) -> None:
        self.method = method
        self.path = path
        self.act = act
        self._key = key
        self._parameters = list(inspect.signature(act).parameters.values())[1:]

    @functools.cached_property
    def _hints(self) -> dict[str, Any]:
        return get_type_hints(self.act)

    @functools.cached_property
    def _body_is_parameter(self) -> bool:
        hints = [self._hints[parameter.name] for parameter in self._parameters]
        return len(hints) == 1 and inspect.isclass(hints[0]) and issubclass(hints[0], msgspec.Struct)

    @functools.cached_property
    def body(self) -> type[msgspec.Struct]:
        """A struct of the parameters; a single parameter that is a struct stands for itself."""
        if self._body_is_parameter:
            return self._hints[self._parameters[0].name]  # type: ignore[no-any-return]
        fields = [(each.name, self._hints[each.name], *_default(each)) for each in self._parameters]
        return msgspec.defstruct(self.path, fields, forbid_unknown_fields=True, omit_defaults=True)

    def pack(self, *args: Any, **kwargs: Any) -> msgspec.Struct:
        """Return the arguments of a call as one struct."""
        return args[0] if self._body_is_parameter else self.body(*args, **kwargs)

    def decode(self, answer: bytes) -> Any:
        """Return the result that an answer holds."""
        result = self._hints["return"]
        if self._key is None:
            return None if result is type(None) else msgspec.json.decode(answer, type=result)
        return msgspec.json.decode(answer, type=dict[str, result])[self._key]  # type: ignore[valid-type]

    async def run(self, steered: Steered, request: Request) -> Any:
        """Call the method with the arguments of a request; return what the answer holds."""
        if self.method == "GET":
            body = msgspec.convert(dict(request.query_params), self.body, strict=False)
        else:
            body = msgspec.json.decode(await request.body() or b"{}", type=self.body)
        given = (
            (body,) if self._body_is_parameter else (getattr(body, each.name) for each in self._parameters)
        )
        result = self.act(steered, *given)
        if self._key is not None:
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
        given = (
            {"params": msgspec.to_builtins(body)}
            if form.method == "GET"
            else {"data": msgspec.json.encode(body, enc_hook=list)}
        )
        response = self._session.request(
            form.method, f"{self._root_url}/sandbox/{form.path}", timeout=60, **given
        )
        if response.status_code == 404:
            raise KeyError(response.text)
        if response.status_code != 200:
            raise ValueError(response.text)
        return form.decode(response.content)


def control_routes(steered: Steered) -> Sequence[Route]:
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


def _default(parameter: inspect.Parameter) -> tuple[Any, ...]:
    return () if parameter.default is parameter.empty else (parameter.default,)
