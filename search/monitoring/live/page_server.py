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
from runs.storage.database.connection import (
    DATABASE_ERRORS,
    StoreError,
    check_file,
    file_of,
    reason,
    shown,
)
from runs.storage.database.study_copies import identity
from runs.storage.store import Store
from search.inputs.input_error import InputError
from search.inputs.stored_study.study_config import config_of
from search.monitoring.live.live_view import PhasePace, PhaseStanding
from search.monitoring.live.study_watcher import Watcher
from search.monitoring.study_summary import make_report

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

REPORT_SHARE = 0.1
"""Most of the time that is spent on making reports, as one of a large study takes seconds."""

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


class _Study:
    """The study that is served: opened anew where another file took its place.

    Args:
        place: Its file, or the URL of its database.
    """

    def __init__(self, place: str) -> None:
        self._place = place
        self._file: str | None = None
        self._store: Store | None = None
        self._live: LiveReport | None = None

    def live(self) -> LiveReport:
        """What is to be seen of it now.

        Raises:
            StoreError: If there is none, or none that can be read.
        """
        path = file_of(self._place)
        if path is not None:
            check_file(path, shown(self._place))  # to open what is gone would make an empty file
        file = None if path is None else identity(path)
        if self._live is None or file != self._file:
            self.close()
            self._store = Store.open(self._place)
            self._file, self._live = file, LiveReport(self._store)
        return self._live

    def close(self) -> None:
        """Close it until it is asked for again."""
        if self._store is not None:
            self._store.close()
        self._store = self._live = None


def application(place: str, *, token: str, host: str, port: int) -> Starlette:
    """The pages of a study.

    Args:
        place: The study's file, or the URL of its database; only read, by one thread.
        token: What a browser has to bring once, in the address; empty for nothing, and then only
            requests that name this machine as ``localhost`` or by its address are answered.
        host: What is listened on.
        port: Likewise; it tells the tokens of several servers of one machine apart.
    """
    study, reader = _Study(place), ThreadPoolExecutor(max_workers=1)

    async def read(what: Callable[[LiveReport], Any]) -> Any:
        def work() -> Any:
            try:
                return what(study.live())
            except (StoreError, *DATABASE_ERRORS):
                study.close()
                raise

        return await asyncio.get_running_loop().run_in_executor(reader, work)

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

    async def whole(_: Request) -> Response:
        made: _Made = await read(LiveReport.report)
        return Response(made.html, media_type="text/html")

    async def standing(_: Request) -> Response:
        return JSONResponse(await read(LiveReport.standing))

    async def file(request: Request) -> Response:
        name = next((n for n in _FILES if FORMATS[n].file == request.path_params["name"]), None)
        if name is None or (text := FORMATS[name].text) is None:
            return PlainTextResponse("no such file", status_code=404)
        found = await read(lambda live: text(live.report().report))
        return _download(found, FORMATS[name].file, _FILES[name])

    async def best(_: Request) -> Response:
        made: _Made = await read(LiveReport.report)
        if made.report.best_yaml is None:
            return PlainTextResponse("nothing has a score yet", status_code=404)
        return _download(made.report.best_yaml, "best.yaml", "application/yaml")

    async def recipe(request: Request) -> Response:
        wanted = request.path_params["candidate"]
        text = None
        if wanted.isascii() and wanted.isdigit() and len(wanted) < 10:
            text = await read(lambda live: live.recipe(int(wanted)))
        if text is None:
            return PlainTextResponse("no such candidate", status_code=404)
        return _download(text, f"candidate-{int(wanted)}.yaml", "application/yaml")

    pages = {
        "/": whole,
        "/standing.json": standing,
        "/files/best.yaml": best,
        "/files/{name}": file,
        "/recipes/{candidate}.yaml": recipe,
    }
    app = Starlette(routes=[Route(path, answer) for path, answer in pages.items()])
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
