"""The embedded chain behind HTTP: JSON-RPC on ``/`` (single and batch), and the faucet on ``/faucet``.

One asyncio task at a time touches the chain, so requests are answered in the order in which they come. This module
does not know what a method does.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from typing import Any

from aiohttp import web

from tallymesh.errors import TallymeshError
from tallymesh_ledger.embedded_chain.evm import Evm
from tallymesh_ledger.embedded_chain.faucet import Faucet
from tallymesh_ledger.embedded_chain.methods import Methods, RpcFailure

MAX_REQUEST_BYTES = 4 * 1024 * 1024  # a batch of 500 calls of a few KiB each
MAX_BATCH = 1_000
QUIET_S = 1.0  # an empty block when the newest is older than this
PARSE_ERROR = -32700
INVALID_REQUEST = -32600
INTERNAL_ERROR = -32603


class ChainServer:
    """Serves one chain until it is closed. The faucet may come later: it needs the chain to deploy its token first."""

    def __init__(self, evm: Evm, methods: Methods) -> None:
        self._evm = evm
        self._methods = methods
        self.faucet: Faucet | None = None
        self._app = web.Application(client_max_size=MAX_REQUEST_BYTES)
        self._app.router.add_post("/", self._rpc)
        self._app.router.add_post("/faucet", self._faucet)
        self._runner = web.AppRunner(self._app, access_log=None, shutdown_timeout=1.0)
        self._ticker: asyncio.Task[None] | None = None

    async def start(self, host: str, port: int) -> str:
        """Listen; the URL that clients use. Raises OSError where the port is taken."""
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port)
        await site.start()
        self._ticker = asyncio.create_task(self._tick())
        bound_host, bound_port = self._runner.addresses[0][:2]
        shown = f"[{bound_host}]" if ":" in bound_host else bound_host
        return f"http://{shown}:{bound_port}"

    async def close(self) -> None:
        if self._ticker is not None:
            self._ticker.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._ticker
        await self._runner.cleanup()

    async def wait_failed(self) -> None:
        """Returns only by raising what stopped the clock: a chain that mines no more must not stay up."""
        assert self._ticker is not None
        await asyncio.shield(self._ticker)

    async def _tick(self) -> None:
        while True:
            age = time.time() - self._evm.head.timestamp
            if age >= QUIET_S:
                self._evm.mine()
            else:
                await asyncio.sleep(QUIET_S - age)
            await asyncio.sleep(0)

    async def _rpc(self, request: web.Request) -> web.Response:
        try:
            body = json.loads(await request.read())
        except (ValueError, RecursionError):
            return _json(_failed(None, RpcFailure(PARSE_ERROR, "parse error")))
        if not isinstance(body, list):
            return _json(self._answer(body))
        if not 0 < len(body) <= MAX_BATCH:
            return _json(_failed(None, RpcFailure(INVALID_REQUEST, f"a batch has 1 to {MAX_BATCH} requests")))
        answers = []
        for each in body:
            answers.append(self._answer(each))
            await asyncio.sleep(0)  # others get their turn between two requests of a batch
        return _json(answers)

    def _answer(self, body: Any) -> dict[str, Any]:
        if not isinstance(body, dict) or not isinstance(body.get("method"), str):
            return _failed(None, RpcFailure(INVALID_REQUEST, "invalid request"))
        params = body.get("params", [])
        if not isinstance(params, list):
            return _failed(body.get("id"), RpcFailure(INVALID_REQUEST, "params must be a list"))
        try:
            result = self._methods.call(body["method"], params)
        except RpcFailure as error:
            return _failed(body.get("id"), error)
        return {"jsonrpc": "2.0", "id": body.get("id"), "result": result}

    async def _faucet(self, request: web.Request) -> web.Response:
        if self.faucet is None:
            return _json({"error": {"code": "no_faucet", "sentence": "The faucet is not open yet."}}, status=503)
        try:
            body = await request.json()
            address = bytes.fromhex(body["address"].removeprefix("0x"))
        except (ValueError, TypeError, KeyError, AttributeError):
            address = b""
        if len(address) != 20:
            sentence = 'Send {"address": "0x…"}.'
            return _json({"error": {"code": "bad_address", "sentence": sentence}}, status=400)
        try:
            given = self.faucet.give(address)
        except TallymeshError as error:
            return _json({"error": {"code": error.code, "sentence": str(error)}}, status=429)
        except RpcFailure as error:
            return _json({"error": {"code": "faucet_empty", "sentence": error.message}}, status=503)
        return _json(given)


def _failed(id_: Any, error: RpcFailure) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": id_, "error": error.shown()}


def _json(body: Any, status: int = 200) -> web.Response:
    return web.Response(body=json.dumps(body).encode(), status=status, content_type="application/json")
