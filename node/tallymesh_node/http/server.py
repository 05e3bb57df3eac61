"""The node's local HTTP API (docs/API.md): routes, and the server itself.

aiohttp runs inside a trio-asyncio loop that lives as long as `run`. Handlers are asyncio tasks; where they call the
node's trio services they cross over by `trio_as_aio`, and a reader that goes away cancels what it waited for. This
module does not know what the services do.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from asyncio import AbstractEventLoop, Server
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import trio
import trio_asyncio
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from tallymesh.errors import CallerError, LocalError
from tallymesh_node.http import blobs, events, jobs, money, owned
from tallymesh_node.http.access import Access, Published, host_names, load_token, local_name
from tallymesh_node.http.answers import Handler, errors_to_answers, json_answer
from tallymesh_node.http.crowd import Counted, Crowd
from tallymesh_node.http.facade import NodeFacade
from tallymesh_node.http.metrics import CONTENT_TYPE, Metrics
from tallymesh_node.http.turns import make_brisk

if TYPE_CHECKING:  # libp2p's trio-typing hides trio's own annotations from mypy
    from trio_typing import TaskStatus

log = logging.getLogger("tallymesh.http")

MAX_HEADER_BYTES: Final = 8 * 1024  # of one line: a token, a host and a few words
MAX_HEADERS: Final = 64  # lines; a browser behind a proxy sends 30. Half a MiB of a stranger is kept at most
SHUTDOWN_S: Final = 2.0  # open answers get this long when the node stops; event streams are cut
KEEPALIVE_S: Final = 60.0
LINGER_S: Final = 2.0  # a refused body is read on this long, so that its sender sees the answer and not a reset
TURNS: Final = 3  # of the loop: let in, given a protocol, told to it
BACKLOG: Final = 128  # connections that wait in the kernel …
ENTER_A_TURN: Final = 4  # … from where so many come in at once (crowd.py says why)
UNPACKS: Final = False  # aiohttp would unpack a body before anybody is asked for the token: a second of CPU for 2 MB
OPEN_PATHS: Final = frozenset({"/livez", "/readyz"})  # for supervisors: no token, and nothing is told


class ApiServer:
    """Serves one node. `run` is a long-lived function for the daemon's nursery: it starts with the URL once the port
    is open, and removes `api.json` when it is cancelled."""

    def __init__(
        self,
        node: NodeFacade,
        home: Path,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        hosts: Sequence[str] = (),
        network: Path | None = None,
    ) -> None:
        """`network` is the network file that the node was started with: commands that are typed without it ask."""
        self._node = node
        self._home = home
        self._host = host
        self._port = port
        self._hosts = hosts
        self._network = network
        self._metrics = Metrics(node)
        self._streams = events.Streams()
        self.crowd = Crowd()
        self.token = load_token(home)
        self.url = ""

    async def run(self, *, task_status: TaskStatus[str] = trio.TASK_STATUS_IGNORED) -> None:
        """LocalError `port_taken` where the port cannot be had."""
        with self._listen() as listener:
            port = listener.getsockname()[1]
            self.url = f"http://{local_name(self._host)}:{port}"
            access = Access(self.token, host_names(self._host, port, self._hosts))
            published = Published(self._home, self.url, self.token, self._network)
            async with trio_asyncio.open_loop() as loop:
                make_brisk(loop)
                # By default trio-asyncio ends the program over an error of any one connection.
                loop.set_exception_handler(_report)
                runner = web.AppRunner(
                    self._application(access),
                    handle_signals=False,
                    access_log=None,
                    handler_cancellation=True,
                    shutdown_timeout=SHUTDOWN_S,
                    keepalive_timeout=KEEPALIVE_S,
                    lingering_time=LINGER_S,
                    auto_decompress=UNPACKS,
                    max_line_size=MAX_HEADER_BYTES,
                    max_field_size=MAX_HEADER_BYTES,
                    max_headers=MAX_HEADERS,
                    logger=_raw,
                )
                await trio_asyncio.aio_as_trio(runner.setup)()
                door: Server | None = None
                try:
                    door = await trio_asyncio.aio_as_trio(self._open_door)(runner, listener)
                    published.write()
                    task_status.started(self.url)
                    await trio.sleep_forever()
                finally:
                    published.remove()
                    with trio.CancelScope(shield=True), trio.move_on_after(2 * SHUTDOWN_S):
                        await trio_asyncio.aio_as_trio(_leave)(runner, door, self.crowd)

    async def _open_door(self, runner: web.AppRunner, listener: socket.socket) -> Server:
        """aiohttp's own site counts nobody."""
        made = runner.server
        assert made is not None
        loop = asyncio.get_running_loop()
        door = await loop.create_server(lambda: Counted(made(), self.crowd), sock=listener, backlog=ENTER_A_TURN)
        listener.listen(BACKLOG)  # asyncio has one number for both
        return door

    def _listen(self) -> socket.socket:
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.setblocking(False)
            listener.bind((self._host, self._port))
        except OSError as error:
            listener.close()
            raise LocalError(
                "port_taken",
                f"The API cannot listen on {self._host}:{self._port}: {os.strerror(error.errno or 0)}.",
                remedy="Choose another with --api-port, or 0 for any free one.",
            ) from None
        return listener

    def _application(self, access: Access) -> web.Application:
        node, store = self._node, self._node.blobs

        @web.middleware
        async def count(request: web.Request, handler: Handler) -> web.StreamResponse:
            answer = await handler(request)
            self._metrics.count(request.method, answer.status)
            return answer

        @web.middleware
        async def admit(request: web.Request, handler: Handler) -> web.StreamResponse:
            if not access.host_is_right(request.host):
                raise CallerError("wrong_host", "This server does not go by that name.")
            if access.token_is_right(request.headers.get("Authorization", "")):
                self.crowd.know(request.transport)
            elif request.path not in OPEN_PATHS:
                raise CallerError(
                    "unauthorised",
                    "The token is missing or wrong.",
                    remedy="Send 'Authorization: Bearer TOKEN'; the token is in the node's folder, in api.token.",
                )
            return await handler(request)

        async def cut_streams(application: web.Application) -> None:
            self._streams.cut()

        application = web.Application(middlewares=[count, errors_to_answers, admit])
        application.on_shutdown.append(cut_streams)

        def get(path: str, answer: Any) -> None:
            """A GET route whose answer comes from memory."""

            async def handler(request: web.Request) -> web.Response:
                value = answer(request)
                return value if isinstance(value, web.Response) else json_answer(value)

            application.router.add_get(path, handler)

        def payer_says(name: str) -> Any:
            return lambda request: getattr(jobs.payer_of(node), name)(request.match_info["id"])

        get("/livez", lambda request: web.Response(text="ok\n"))
        get("/readyz", self._readyz)
        get("/metrics", lambda request: web.Response(body=self._metrics.text(), headers={"Content-Type": CONTENT_TYPE}))
        get("/v1/node", lambda request: node.view())
        get("/v1/offers", lambda request: list(node.offers()))
        get("/v1/jobs", lambda request: list(jobs.payer_of(node).jobs()))
        get("/v1/jobs/{id}", payer_says("job"))
        get("/v1/jobs/{id}/why", payer_says("why"))
        get("/v1/jobs/{id}/receipts", lambda request: jobs.rows_after(request, payer_says("receipts")(request)))
        get("/v1/jobs/{id}/audits", lambda request: jobs.rows_after(request, payer_says("audits")(request)))

        async def event_stream(request: web.Request) -> web.StreamResponse:
            return await events.stream(request, jobs.payer_of(node), self._streams)

        async def submit(request: web.Request) -> web.Response:
            return await jobs.submit(request, node)

        async def cancel(request: web.Request) -> web.Response:
            return await jobs.cancel(request, node)

        async def results(request: web.Request) -> web.Response:
            return await jobs.results(request, node)

        async def upload(request: web.Request) -> web.Response:
            return await blobs.upload(request, store, node.room)

        async def upload_bundle(request: web.Request) -> web.Response:
            return await blobs.upload_bundle(request, store, node.room)

        async def missing(request: web.Request) -> web.Response:
            return await blobs.missing(request, store)

        async def download(request: web.Request) -> web.StreamResponse:
            return await blobs.download(request, store)

        async def listing(request: web.Request) -> web.Response:
            return await owned.listing(request, store, node.room)

        async def collect(request: web.Request) -> web.Response:
            return await owned.collect(request, node.room)

        async def remove(request: web.Request) -> web.Response:
            return await owned.remove(request, store, node.room)

        async def pin(request: web.Request) -> web.Response:
            return await owned.pin(request, store)

        async def stop(request: web.Request) -> web.Response:
            node.stop()
            return json_answer({"stopping": True}, 202)

        async def withdraw(request: web.Request) -> web.Response:
            return await money.withdraw(request, node)

        router = application.router
        router.add_get("/v1/jobs/{id}/events", event_stream)
        router.add_post("/v1/jobs", submit)
        router.add_post("/v1/jobs/{id}/cancel", cancel)
        router.add_get("/v1/jobs/{id}/results", results)
        router.add_put("/v1/blobs/{id}", upload)
        router.add_post("/v1/blobs", upload_bundle)
        router.add_post("/v1/blobs/missing", missing)
        router.add_get("/v1/blobs", listing)
        router.add_post("/v1/blobs/collect", collect)
        router.add_get("/v1/blobs/{id}", download)
        router.add_delete("/v1/blobs/{id}", remove)
        router.add_put("/v1/blobs/{id}/pin", pin)
        router.add_delete("/v1/blobs/{id}/pin", pin)
        router.add_post("/v1/node/stop", stop)
        router.add_post("/v1/withdraw", withdraw)
        return application

    def _readyz(self, request: web.Request) -> web.Response:
        ready = self._node.ready()
        return web.Response(text="ready\n" if ready else "not ready\n", status=200 if ready else 503)


class _OfStrangers(logging.Filter):
    """aiohttp writes a traceback for each request that cannot be read. Whoever sends those would fill the log."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        return not isinstance(error, HttpProcessingError | ConnectionError | TimeoutError)


_raw = logging.getLogger("tallymesh.http.raw")
_raw.addFilter(_OfStrangers())


def _report(loop: AbstractEventLoop, context: dict[str, Any]) -> None:
    """An error that no handler was there for: one connection's trouble, told to the log and to nobody else."""
    log.warning("http: %s", context.get("message", "error"), exc_info=context.get("exception"))


async def _leave(runner: web.AppRunner, door: Server | None, crowd: Crowd) -> None:
    """Nobody's connection outlives the API. Those who were let in a moment ago get their protocols before the door is
    closed: asyncio forgets the others with their sockets open. The caller bounds how long it may take."""
    if door is not None:
        for listener in door.sockets:
            asyncio.get_running_loop().remove_reader(listener.fileno())
        for _ in range(TURNS):
            await asyncio.sleep(0)
        door.close()
    await runner.cleanup()
    while crowd.made:
        crowd.push_all_out()
        await asyncio.sleep(0)
