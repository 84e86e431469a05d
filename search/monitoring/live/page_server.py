"""``search serve``: the report of a run as a page that grows with it; it only reads.

The page is the report (``runs/report/html``) with a line on top that says where the run stands.
This is the one module that imports a web server. Texts of a study are escaped by the report, and
the page's policy allows no script but its own.
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
import socket
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address
from typing import Any

from runs.report.report_files import FORMATS
from runs.storage.database.connection import DATABASE_ERRORS, StoreError, reason
from search.inputs.input_error import InputError
from search.monitoring.live.live_report import LiveReport, MadeReport, ServedStudy

try:
    import uvicorn
    from starlette.applications import Starlette
    from starlette.middleware.base import BaseHTTPMiddleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.requests import Request
    from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
    from starlette.routing import Route
except ImportError as error:
    raise InputError(
        "serve: expected the packages starlette and uvicorn, got an environment without them; "
        "pip install 'merge-search[serve]'"
    ) from error

_HEADERS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
_FILES = {"csv": "text/csv", "json": "application/json", "markdown": "text/markdown"}


class _Pages:
    """What is answered about a study, which one thread reads."""

    def __init__(self, place: str) -> None:
        self._study = ServedStudy(place)
        self._reader = ThreadPoolExecutor(max_workers=1)
        self.answers = {
            "/": self._whole,
            "/standing.json": self._standing,
            "/files/best.yaml": self._best,
            "/files/{name}": self._file,
            "/recipes/{candidate}.yaml": self._recipe,
        }

    async def _read(self, what: Callable[[LiveReport], Any]) -> Any:
        def work() -> Any:
            try:
                return what(self._study.live())
            except (StoreError, *DATABASE_ERRORS):
                self._study.close()
                raise

        return await asyncio.get_running_loop().run_in_executor(self._reader, work)

    async def _whole(self, _: Request) -> Response:
        made: MadeReport = await self._read(LiveReport.report)
        return Response(made.html, media_type="text/html")

    async def _standing(self, _: Request) -> Response:
        return JSONResponse(await self._read(LiveReport.standing))

    async def _file(self, request: Request) -> Response:
        name = next((n for n in _FILES if FORMATS[n].file == request.path_params["name"]), None)
        if name is None or (text := FORMATS[name].text) is None:
            return PlainTextResponse("no such file", status_code=404)
        content = await self._read(lambda live: text(live.report().report))
        return _download(content, FORMATS[name].file, _FILES[name])

    async def _best(self, _: Request) -> Response:
        made: MadeReport = await self._read(LiveReport.report)
        if made.report.best_yaml is None:
            return PlainTextResponse("nothing has a score yet", status_code=404)
        return _download(made.report.best_yaml, "best.yaml", "application/yaml")

    async def _recipe(self, request: Request) -> Response:
        wanted = request.path_params["candidate"]
        text = None
        if wanted.isascii() and wanted.isdigit() and len(wanted) < 10:
            text = await self._read(lambda live: live.recipe(int(wanted)))
        if text is None:
            return PlainTextResponse("no such candidate", status_code=404)
        return _download(text, f"candidate-{int(wanted)}.yaml", "application/yaml")


def application(place: str, *, token: str, host: str, port: int) -> Starlette:
    """The pages of a study.

    Args:
        place: The study's file, or the URL of its database; only read, by one thread.
        token: What a browser has to bring once, in the address; empty for nothing, and then only
            requests that name this machine as ``localhost`` or by its address are answered.
        host: What is listened on.
        port: Likewise; it tells the tokens of several servers of one machine apart.
    """

    async def checked(
        request: Request, answer: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        response = _entrance(request, token, f"merge_search_token_{port}")
        if response is None:
            try:
                response = await answer(request)
            except (StoreError, *DATABASE_ERRORS) as error:
                text = str(error) if isinstance(error, StoreError) else reason(error)
                response = PlainTextResponse(text, status_code=503)
        response.headers.update(_HEADERS)
        return response

    routes = [Route(path, answer) for path, answer in _Pages(place).answers.items()]
    app = Starlette(routes=routes)
    app.add_middleware(BaseHTTPMiddleware, dispatch=checked)
    if not token:
        names = ["localhost", "127.0.0.1", "[::1]", "::1", host]
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=names)
    return app


def _entrance(request: Request, token: str, cookie: str) -> Response | None:
    """What keeps a request out, or takes its token out of the address; ``None`` to let it in."""
    if not token:
        return None
    brought = request.query_params.get("token")
    if brought is not None and _same(brought, token):
        response = RedirectResponse(request.url.path, status_code=303)
        response.set_cookie(cookie, token, httponly=True, samesite="strict")
        return response
    if _same(request.cookies.get(cookie, ""), token):
        return None
    return PlainTextResponse(
        "Open the whole address that `search serve` printed: it ends with a token.",
        status_code=401,
    )


def _same(first: str, second: str) -> bool:
    return hmac.compare_digest(first.encode(), second.encode())


def _download(text: str, name: str, kind: str) -> Response:
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return Response(text, media_type=kind, headers=headers)


def serve(place: str, *, host: str, port: int, told: Callable[[str], None]) -> None:
    """Answer requests until the user stops it.

    Args:
        place: The study's file, or the URL of its database; only read.
        host: Address or name of this machine to listen on. On all but loopback a token is needed.
        port: To listen on; 0 for a free one.
        told: Gets the address to open.

    Raises:
        InputError: If nothing can listen there.
    """
    token = "" if is_loopback(host) else secrets.token_urlsafe(16)
    listener = _listener(host, port)
    port = listener.getsockname()[1]
    name = socket.gethostname() if host in ("0.0.0.0", "::") else host  # noqa: S104 - said, not bound
    name = f"[{name}]" if ":" in name else name
    told(f"http://{name}:{port}/" + (f"?token={token}" if token else ""))
    config = uvicorn.Config(
        application(place, token=token, host=host, port=port),
        log_level="warning",
        access_log=False,
        server_header=False,
        lifespan="off",
        timeout_graceful_shutdown=1,
    )
    try:
        uvicorn.Server(config).run(sockets=[listener])
    except KeyboardInterrupt:
        pass  # the way to stop it
    finally:
        listener.close()


def is_loopback(host: str) -> bool:
    """Whether only programs on this machine reach an address."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _listener(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(place)
        listener.listen()
    except OSError as error:
        raise InputError(
            f"serve: expected an address and a port to listen on, got {host} and {port}: "
            f"{error.strerror or error}"
        ) from error
    return listener
