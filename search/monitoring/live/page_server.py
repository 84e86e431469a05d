"""``search serve``: the report of a run as a page that grows with it; it only reads.

The page is the report (``runs/report/html``) with a line on top that says where the run stands.
This is the one module that imports a web server. Texts of a study are escaped by the report, and
the page's policy allows no script but its own.
"""

from __future__ import annotations

import asyncio
import hmac
import math
import secrets
import socket
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from runs.report.html.page import page
from runs.report.report_content import Report
from runs.report.report_files import FORMATS
from runs.storage.database.connection import DATABASE_ERRORS
from runs.storage.store import Store
from search.inputs.input_error import InputError
from search.inputs.stored_study.study_config import config_of
from search.monitoring.live.live_view import PhasePace, PhaseStanding
from search.monitoring.live.study_watcher import Watcher
from search.monitoring.study_summary import make_report

try:
    import uvicorn
    from starlette.applications import Starlette
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.requests import Request
    from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
    from starlette.routing import Route
except ImportError as error:
    raise InputError(
        "serve: expected the packages starlette and uvicorn, got an environment without them; "
        "pip install 'merge-search[serve]'"
    ) from error

REPORT_SHARE = 0.1
"""Most of the time that is spent on making reports, as one of a large study takes seconds."""

COOKIE = "merge_search_token"

_HEADERS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
_FILES = {"csv": "text/csv", "json": "application/json", "markdown": "text/markdown"}


@dataclass(frozen=True, kw_only=True, slots=True)
class _Made:
    """A report, and how far the run was when it was made.

    Attributes:
        report: The report.
        html: As a page.
        state: Results that it knows of, and whether the run was over.
        due: When another one may be made, on the clock of ``time.monotonic``.
    """

    report: Report
    html: str
    state: tuple[int, bool]
    due: float


class LiveReport:
    """What the page shows. All reading is done by one thread, as requests come.

    Args:
        store: The study; only read.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._watcher = Watcher(store)
        self._pace = PhasePace(self._watcher.seconds)
        self._made: _Made | None = None

    def standing(self) -> dict[str, Any]:
        """Where the run stands, as JSON; ``results`` grows when a reload would show more."""
        standing = self._watcher.standing()
        self._pace.see(standing)
        return {
            "results": self._results(standing),
            "over": self._watcher.over,
            "driven": self._watcher.driven,
            "phase": standing.phase,
            "share": None if math.isnan(standing.progress) else standing.progress,
            "done": standing.amount(),
            "time": self._pace.text(standing),
            "best": standing.best_text(),
            "workers": f"{standing.running} of {standing.workers} busy",
            "failures": standing.failed_text() if standing.failures else "",
            "notice": standing.notice,
        }

    def _results(self, standing: PhaseStanding) -> int:
        return standing.questions + standing.failures

    def report(self) -> _Made:
        """The newest report; one that took long to make is shown for a while."""
        made, now = self._made, time.monotonic()
        if made is not None and now < made.due:
            return made
        standing = self._watcher.standing()
        state = (self._results(standing), self._watcher.over)
        if made is not None and made.state == state:
            return made
        try:
            report = make_report(self._store, config_of(self._store))
        finally:
            self._store.rest()
        html = page(report, live=state[0])
        took = time.monotonic() - now
        due = time.monotonic() + took * (1 / REPORT_SHARE - 1)
        self._made = _Made(report=report, html=html, state=state, due=due)
        return self._made

    def recipe(self, candidate: int) -> str | None:
        """A candidate's recipe as YAML; ``None`` where there is none of that number."""
        details = self.report().report.details
        found = (one for one in details.records if one.id == candidate) if details else ()
        record = next(iter(found), None)
        return None if record is None or details is None else details.recipe(record)


def application(store: Store, *, token: str) -> Starlette:
    """The pages of a study.

    Args:
        store: The study; only read, by one thread.
        token: What a browser has to bring once, in the address; empty for nothing, and then only
            requests that name this machine as ``localhost`` or by its address are answered.
    """
    live, reader = LiveReport(store), ThreadPoolExecutor(max_workers=1)

    async def read(what: Callable[[], Any]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(reader, what)

    def answered(
        handler: Callable[[Request], Awaitable[Response]],
    ) -> Callable[[Request], Awaitable[Response]]:
        async def checked(request: Request) -> Response:
            response = _entrance(request, token)
            if response is None:
                try:
                    response = await handler(request)
                except DATABASE_ERRORS as error:
                    response = PlainTextResponse(str(store.failure(error)), status_code=503)
            response.headers.update(_HEADERS)
            return response

        return checked

    async def whole(_: Request) -> Response:
        made: _Made = await read(live.report)
        return Response(made.html, media_type="text/html")

    async def standing(_: Request) -> Response:
        return JSONResponse(await read(live.standing))

    async def file(request: Request) -> Response:
        name = next((n for n in _FILES if FORMATS[n].file == request.path_params["name"]), None)
        if name is None or (text := FORMATS[name].text) is None:
            return PlainTextResponse("no such file", status_code=404)
        made: _Made = await read(live.report)
        return _download(await read(lambda: text(made.report)), FORMATS[name].file, _FILES[name])

    async def best(_: Request) -> Response:
        made: _Made = await read(live.report)
        if made.report.best_yaml is None:
            return PlainTextResponse("nothing has a score yet", status_code=404)
        return _download(made.report.best_yaml, "best.yaml", "application/yaml")

    async def recipe(request: Request) -> Response:
        number = int(request.path_params["candidate"])
        text = await read(lambda: live.recipe(number))
        if text is None:
            return PlainTextResponse("no such candidate", status_code=404)
        return _download(text, f"candidate-{number}.yaml", "application/yaml")

    pages = {
        "/": whole,
        "/standing.json": standing,
        "/files/best.yaml": best,
        "/files/{name}": file,
        "/recipes/{candidate:int}.yaml": recipe,
    }
    app = Starlette(routes=[Route(path, answered(page)) for path, page in pages.items()])
    if not token:
        app.add_middleware(
            TrustedHostMiddleware, allowed_hosts=["localhost", "127.0.0.1", "[::1]", "::1"]
        )
    return app


def _entrance(request: Request, token: str) -> Response | None:
    """What keeps a request out, or takes its token out of the address; ``None`` to let it in."""
    if not token:
        return None
    brought = request.query_params.get("token")
    if brought is not None and _same(brought, token):
        response = RedirectResponse(request.url.path, status_code=303)
        response.set_cookie(COOKIE, token, httponly=True, samesite="strict")
        return response
    if _same(request.cookies.get(COOKIE, ""), token):
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


def serve(store: Store, *, host: str, port: int, told: Callable[[str], None]) -> None:
    """Answer requests until the user stops it.

    Args:
        store: The study; only read.
        host: Address or name of this machine to listen on. On all but loopback a token is needed.
        port: To listen on; 0 for a free one.
        told: Gets the address to open.

    Raises:
        InputError: If nothing can listen there.
    """
    token = "" if is_loopback(host) else secrets.token_urlsafe(16)
    listener = _listener(host, port)
    name = f"[{host}]" if ":" in host else host
    address = f"http://{name}:{listener.getsockname()[1]}/"
    told(address + (f"?token={token}" if token else ""))
    config = uvicorn.Config(
        application(store, token=token),
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
