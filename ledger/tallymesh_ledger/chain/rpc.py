"""JSON-RPC to a chain over HTTP, on trio: several URLs tried in order, bounded waits and retries, one chain id.

An answer is the chain's word or a `ChainError`: `reverted` with the contract's reason in its sentence, or not reverted
where the chain could not be asked (then asking later may help). Where there are several URLs their newest blocks are
compared from time to time, and one that lags is asked only when no other answers. This module does not know
transactions or contracts.
"""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any, Self

import httpx
import msgspec
import trio

from tallymesh.errors import ChainError
from tallymesh_ledger.chain import abi
from tallymesh_ledger.chain.endpoint import Busy, Endpoint
from tallymesh_ledger.chain.http import Http

log = logging.getLogger(__name__)

TIMEOUT_S = 10.0  # for one request to one URL
PATIENCE_S = 15.0  # for one call over all URLs and retries; a chain that is away longer is the caller's business
MAX_BATCH = 500  # requests in one batch; more are sent as several
HEADS_S = 30.0  # between two comparisons of the URLs' newest blocks
HEAD_TIMEOUT_S = 3.0  # for one of them to say: a comparison delays one call
LAG_BLOCKS = 4  # a URL that many blocks or more behind the best is used last: load balancers differ by one or two


class Block(msgspec.Struct, frozen=True):
    """A block's name and time (whole seconds of Unix time)."""

    number: int
    hash: bytes
    parent: bytes
    timestamp: int
    base_fee: int | None = None  # None on chains without EIP-1559
    bloom: bytes = b""  # filter of what logged in it; empty where the node does not say


class Rpc:
    """One chain. Use ``async with``; may be used by any number of tasks at once."""

    def __init__(
        self,
        urls: Sequence[str],
        *,
        chain_id: int | None = None,
        timeout_s: float = TIMEOUT_S,
        patience_s: float = PATIENCE_S,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """`transport` replaces the network: tests put a whole chain behind it."""
        assert urls, "a network file names at least one RPC URL"
        self._endpoints = [Endpoint(url) for url in urls]
        self._timeout_s = timeout_s
        self._patience_s = patience_s
        self._expected = chain_id
        self._good = 0  # index of the URL that answered last
        self._compare_at = 0.0  # when the URLs' newest blocks are to be compared next
        self._highest = 0  # newest block known from any of them, as of the last comparison or since
        self._changed = trio.Event()  # a URL answered or failed: whoever waits for one looks again
        self._ids = itertools.count(1)
        self._http = Http(urls, timeout_s=timeout_s, transport=transport)

    def __repr__(self) -> str:
        return f"<Rpc {self._endpoints[self._good].url} chain={self._expected}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        await self._http.aclose()

    # ---- asking

    async def call(self, method: str, *params: Any) -> Any:
        """The result. ChainError where the chain refuses, or cannot be reached within the patience."""
        answer = await self._ask(self._request(method, params))
        return self._result(answer, method)

    async def batch(self, requests: Sequence[tuple[str, Sequence[Any]]]) -> list[Any]:
        """Results in order; in the place of a request that the chain refused stands its ChainError, not raised."""
        results: list[Any] = []
        for start in range(0, len(requests), MAX_BATCH):
            part = requests[start : start + MAX_BATCH]
            bodies = [self._request(method, params) for method, params in part]
            answers = await self._ask(bodies)
            by_id = {each.get("id"): each for each in answers}
            for body, (method, _) in zip(bodies, part, strict=True):
                if body["id"] not in by_id:
                    raise ChainError("chain_unavailable", f"The chain left {method} out of a batch.", reverted=False)
                try:
                    results.append(self._result(by_id[body["id"]], method))
                except ChainError as error:
                    results.append(error)
        return results

    # ---- what everybody asks

    async def chain_id(self) -> int:
        """Also checks it against the one expected."""
        return int(await self.call("eth_chainId"), 16)

    async def known_chain_id(self) -> int:
        """The chain id, asked for once where none was expected."""
        if self._expected is None:
            self._expected = await self.chain_id()
        return self._expected

    async def block(self, number: int | str = "latest") -> Block:
        """ChainError `no_block` where the chain has none of that number (yet, or any more)."""
        tag = hex(number) if isinstance(number, int) else number
        found = await self.call("eth_getBlockByNumber", tag, False)
        if tag == "latest" and found is not None and self._lags(int(found["number"], 16)):
            found = await self.call("eth_getBlockByNumber", tag, False)
        if found is None:
            raise ChainError("no_block", f"The chain has no block {number}.", reverted=False)
        return block_of(found)

    async def balance(self, address: bytes) -> int:
        """Gas coin in wei."""
        return int(await self.call("eth_getBalance", "0x" + address.hex(), "latest"), 16)

    # ---- one round trip

    def _request(self, method: str, params: Sequence[Any]) -> dict[str, Any]:
        return {"jsonrpc": "2.0", "id": next(self._ids), "method": method, "params": list(params)}

    async def _ask(self, body: Any) -> Any:
        """Send to the URLs in order until one answers; the answer's shape is checked, its content is not. ChainError
        `wrong_chain` at once where each of them speaks for another chain, `chain_unavailable` when patience ends."""
        if len(self._endpoints) > 1 and trio.current_time() >= self._compare_at:
            await self._compare_heads()
        with trio.move_on_after(self._patience_s):
            while True:
                for endpoint in self._in_order():
                    if not endpoint.free(trio.current_time()):
                        continue
                    with suppress(Busy, ChainError):  # each endpoint keeps its own problem
                        return await self._try(endpoint, body)
                wrong = [each.wrong for each in self._endpoints if each.wrong]
                if len(wrong) == len(self._endpoints):
                    raise ChainError(wrong[0].code, wrong[0].sentence, reverted=False, remedy=wrong[0].remedy)
                now = trio.current_time()
                if any(each.free(now) for each in self._endpoints):
                    continue  # one got well while another was asked
                free_at = min(each.rest_until for each in self._endpoints)
                if free_at > now + self._patience_s:
                    break  # each asked to be left alone for longer: waiting here would not help
                with trio.move_on_at(free_at if free_at > now else math.inf):  # or until another task's try is over
                    await self._changed.wait()
        problems = "; ".join(f"{each.url}: {each.problem}" for each in self._endpoints if each.problem)
        raise ChainError(
            "chain_unavailable",
            f"The chain did not answer within {self._patience_s:g} s ({problems or 'no answer'}).",
            reverted=False,
            remedy="Check that its node runs and that the RPC URL is right.",
        )

    def _in_order(self) -> list[Endpoint]:
        """The URL that answered last first; those that lag behind the others last."""
        turned = self._endpoints[self._good :] + self._endpoints[: self._good]
        return sorted(turned, key=lambda each: each.behind >= LAG_BLOCKS)

    async def _try(self, endpoint: Endpoint, body: Any) -> Any:
        with self._turn(endpoint):
            await self._check_chain(endpoint)
            answer = await endpoint.post(self._http, body)
        self._good = self._endpoints.index(endpoint)
        return answer

    @contextmanager
    def _turn(self, endpoint: Endpoint) -> Iterator[None]:
        try:
            with endpoint.turn():
                yield
        finally:
            self._changed.set()
            self._changed = trio.Event()

    async def _check_chain(self, endpoint: Endpoint) -> None:
        """Refuse a URL that speaks for another chain: what we sign for this one could be replayed or lost there."""
        if endpoint.checked:
            return
        answer = await endpoint.post(self._http, self._request("eth_chainId", ()))
        found = _number(answer)
        if self._expected is None:
            self._expected = found
        if found != self._expected:
            raise ChainError(
                "wrong_chain",
                f"{endpoint.url} is chain {found}, this network is on chain {self._expected}.",
                reverted=False,
                remedy="Use the RPC URL that belongs to the network file, or the network file of this chain.",
            )
        endpoint.checked = True

    # ---- whose blocks are newest

    def _lags(self, number: int) -> bool:
        """Whether a newest block is so old that the URLs are to be compared before it is believed."""
        if len(self._endpoints) == 1 or number + LAG_BLOCKS > self._highest:
            self._highest = max(self._highest, number)
            return False
        self._compare_at = 0.0
        return True

    async def _compare_heads(self) -> None:
        """Ask each URL for its newest block; those that lag are asked last then. A reorganisation lowers all."""
        self._compare_at = trio.current_time() + HEADS_S
        async with trio.open_nursery() as nursery:
            for endpoint in self._endpoints:
                endpoint.head = None
                if endpoint.free(trio.current_time()):
                    nursery.start_soon(self._ask_head, endpoint)
        heads = [each.head for each in self._endpoints if each.head is not None]
        if not heads:
            return
        self._highest = max(heads)
        for endpoint in self._endpoints:
            if endpoint.head is None:
                continue
            behind = self._highest - endpoint.head
            if behind >= LAG_BLOCKS > endpoint.behind:
                log.warning("%s is %d blocks behind the other URLs: it is asked last", endpoint.url, behind)
            endpoint.behind = behind

    async def _ask_head(self, endpoint: Endpoint) -> None:
        with trio.move_on_after(HEAD_TIMEOUT_S):
            try:
                with self._turn(endpoint):
                    await self._check_chain(endpoint)
                    endpoint.head = _number(await endpoint.post(self._http, self._request("eth_blockNumber", ())))
            except (Busy, ChainError):
                pass  # it is passed over by the next call as well

    # ---- reading an answer

    def _result(self, answer: dict[str, Any], method: str) -> Any:
        error = answer.get("error")
        if error is None:
            return answer.get("result")
        raise error_of(error, method)


def _number(answer: dict[str, Any]) -> int:
    """Busy where a URL cannot even say this."""
    try:
        return int(answer["result"], 16)
    except (KeyError, TypeError, ValueError):
        raise Busy(f"it answered {str(answer.get('error'))[: abi.SHOWN_TEXT]}") from None


def block_of(found: dict[str, Any]) -> Block:
    """A block of a JSON-RPC answer."""
    fee = found.get("baseFeePerGas")
    return Block(
        number=int(found["number"], 16),
        hash=bytes.fromhex(found["hash"][2:]),
        parent=bytes.fromhex(found["parentHash"][2:]),
        timestamp=int(found["timestamp"], 16),
        base_fee=None if fee is None else int(fee, 16),
        bloom=bytes.fromhex((found.get("logsBloom") or "0x")[2:]),
    )


def error_of(error: dict[str, Any], method: str) -> ChainError:
    """What a node answered instead of a result, as ours."""
    message = str(error.get("message", ""))
    data = _revert_data(error.get("data"))
    if data is not None or error.get("code") == 3 or "revert" in message.lower():
        refusal = abi.explain(data or b"", machine=message)
        return ChainError(refusal.code, refusal.sentence, reverted=True)
    if "insufficient funds" in message:
        return ChainError(
            "no_gas_coin",
            f"The account cannot pay for the transaction: {message[: abi.SHOWN_TEXT]}.",
            reverted=True,
            remedy="Send it some of the chain's own coin.",
        )
    return ChainError("rpc_error", f"The chain refused {method}: {message[: abi.SHOWN_TEXT]}.", reverted=False)


def _revert_data(data: Any) -> bytes | None:
    """The bytes a contract reverted with, where the node passes them on: as hex, or inside an object (Hardhat)."""
    if isinstance(data, dict):
        data = data.get("data") or data.get("result")
    if isinstance(data, str):
        text = data.removeprefix("Reverted ")  # OpenEthereum's way
        try:
            return bytes.fromhex(text[2:]) if text.startswith("0x") else None
        except ValueError:
            return None
    return None
