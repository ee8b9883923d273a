"""The door of the server: what a visitor's request holds is checked here, before Gradio sees it.

Gradio prints a traceback for every value that its components do not expect, fetches addresses that are given in the
place of a file, and has routes that this app has no use for. It documents ``app_kwargs`` of ``launch`` as the way to
give the server middleware; this is one.
"""

import asyncio
import json
import logging
import re
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import asdict
from typing import Any, TypeAlias

from keyorbit.app.calls import Cancel, Reset
from keyorbit.app.checks import Endpoint, Endpoints, Refused, request
from keyorbit.app.uploads import Limits
from keyorbit.app.visits import Visits
from keyorbit.errors import InputError
from keyorbit.storage.content import json_in

log = logging.getLogger(__name__)

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

API = "/gradio_api"
# A call names files and numbers; the files themselves come by another way.
_CALL_BYTES = 2**20
_CALL = re.compile(rf"{API}/(?:queue/join|(?:call/v2|call|run)/(?P<name>[^/]+))/?")
_RESULT = re.compile(rf"{API}/call/(?:v2/)?[^/]+/(?P<event>[^/]+)/?")
_HEARTBEAT = re.compile(rf"{API}/heartbeat/(?P<session>[^/]+)/?")
_FILE = re.compile(rf"{API}/file=(?P<path>.+)", re.DOTALL)
_TOLD = re.compile(rf"{API}/(?P<name>cancel|reset)/?")
_UPLOAD = re.compile(rf"{API}/upload/?")
# All else that the page and Gradio's clients use.
_GET = re.compile(
    r"/|/config/?|/theme\.css|/favicon\.ico|/robots\.txt|/manifest\.json|/(?:assets|static|svelte)/.*"
    rf"|{API}/(?:info|app_id|user|startup-events|theme\.css|queue/status|queue/data|openapi\.json|upload_progress)/?"
)


class Door:
    """ASGI middleware: refuses what is no request that the app's page or a program could mean."""

    def __init__(self, app: App, known: list[Endpoint], visits: Visits, limits: Limits) -> None:
        self.app, self.visits, self.limits = app, visits, limits
        self.endpoints = Endpoints(known, visits.holds)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request, or hand it on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began = False

        async def sent(message: Message) -> None:
            nonlocal began
            began = True
            await send(message)

        try:
            await self._enter(scope, receive, sent)
        except Refused as refusal:
            answer, status = refusal.sentence, refusal.status
        except Exception as error:
            # Gradio reports much that a visitor got wrong as any exception. Who wants its traceback has --verbose.
            log.warning("the app: %s %.200r: %s: %.200s", scope["method"], scope["path"], type(error).__name__, error)
            log.info("", exc_info=True)
            answer, status = "the server cannot answer this request: check its fields against /gradio_api/info", 400
        else:
            return
        if began:  # a stream, which has told it; or nothing can be told any more
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        else:
            await _answer(send, status, answer)

    async def _enter(self, scope: Scope, receive: Receive, send: Send) -> None:
        method, path = scope["method"], scope["path"]
        if method == "POST":
            if call := _CALL.fullmatch(path):
                values = await _values(receive)
                if path.startswith(f"{API}/call/v2/"):
                    checked = self.endpoints.named(values, call["name"])
                else:
                    # Only the page, which queues or runs by number, may leave out the name.
                    checked = self.endpoints.call(values, call["name"], by_name=path.startswith(f"{API}/call/"))
                if checked.session is not None:
                    self.visits.use(checked.session, checked.files)
                await self.app(scope, _replay(checked.values, receive), send)
                return
            if told := _TOLD.fullmatch(path):
                kind: type = {"cancel": Cancel, "reset": Reset}[told["name"]]
                await self.app(scope, _replay(asdict(request(kind, await _values(receive))), receive), send)
                return
            if _UPLOAD.fullmatch(path):
                await self.app(scope, await self._measured(scope, receive), send)
                return
        elif method in ("GET", "HEAD"):
            if heartbeat := _HEARTBEAT.fullmatch(path):
                self.visits.come(heartbeat["session"])
                try:
                    await self.app(scope, receive, send)
                finally:
                    self.visits.leave(heartbeat["session"])
                return
            if (file := _FILE.fullmatch(path)) and not self.visits.holds(file["path"]):
                raise Refused(403, "there is no such file, or it was removed: files are kept until the page is closed")
            if file or _RESULT.fullmatch(path) or _GET.fullmatch(path):
                await self.app(scope, receive, send)
                return
        elif method == "OPTIONS":
            await self.app(scope, receive, send)
            return
        raise Refused(404, f"this app has no {method} {path[:100]}")

    async def _measured(self, scope: Scope, receive: Receive) -> Receive:
        """What is received of an upload, as long as it is not too much."""
        most = self.limits.request
        too_much = Refused(413, f"a request has at most {most / 2**20:g} MB: upload fewer or smaller files at a time")
        announced = dict(scope["headers"]).get(b"content-length", b"0")
        if not announced.isdigit() or int(announced) > most:
            raise too_much
        if not await asyncio.to_thread(self.visits.tidy):
            raise Refused(503, "the server has no room for further uploads: try again in an hour")
        total = 0

        async def measured() -> Message:
            nonlocal total
            message = await receive()
            total += len(message.get("body", b""))
            if total > most:
                raise too_much
            return message

        return measured


async def _values(receive: Receive) -> Any:
    parts, total, more = list[bytes](), 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Refused(400, "the request ended early")
        parts.append(message.get("body", b""))
        total, more = total + len(parts[-1]), message.get("more_body", False)
        if total > _CALL_BYTES:
            raise Refused(413, f"a call has at most {_CALL_BYTES / 2**20:g} MB: upload files to {API}/upload")
    try:
        return json_in(b"".join(parts).decode("utf-8-sig"), "the request")
    except UnicodeDecodeError as error:
        raise Refused(400, f"the request is no text in UTF-8: byte {error.start} cannot be read") from error
    except InputError as error:
        raise Refused(400, str(error)) from error


def _replay(values: Mapping[str, Any], receive: Receive) -> Receive:
    """Receive these values as the body, and then what the connection still has to say."""
    left = [{"type": "http.request", "body": json.dumps(values).encode(), "more_body": False}]

    async def replayed() -> Message:
        return left.pop() if left else await receive()

    return replayed


async def _answer(send: Send, status: int, sentence: str) -> None:
    """Answer in the form in which Gradio's page and clients show a sentence: for values that are wrong, their own."""
    told: Any = sentence
    if status == 422:
        told = [{"__type__": "validate", "is_valid": False, "message": sentence, "parameter_name": "the request"}]
    body = json.dumps({"detail": told, "error": sentence}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
