"""JSON-RPC to a chain over HTTP, on trio: several URLs tried in order, bounded waits and retries, one chain id.

An answer is the chain's word or a `ChainError`: `reverted` with the contract's reason in its sentence, or not reverted
where the chain could not be asked (then asking later may help). This module does not know transactions or contracts.
"""

from __future__ import annotations

import itertools
import json
import ssl
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import httpx
import msgspec
import trio

from tallymesh.errors import ChainError
from tallymesh_ledger.chain import abi

TIMEOUT_S = 10.0  # for one request to one URL
PATIENCE_S = 15.0  # for one call over all URLs and retries; a chain that is away longer is the caller's business
BACKOFF_S = (0.1, 0.2, 0.5, 1.0, 2.0)  # between two rounds over all URLs, the last one repeats
MAX_RESPONSE_BYTES = 64 * 1024 * 1024  # 20,000 logs are about 12 MB
MAX_BATCH = 500  # requests in one batch; more are sent as several
MAX_CONNECTIONS = 16  # to one node of ours or a public one: a task more waits for a free one

# What public nodes answer when they want to be asked later or elsewhere (Infura, Alchemy, QuickNode)
_BUSY_CODES = {-32005, -32016, -32097, 429}


class Block(msgspec.Struct, frozen=True):
    """A block's name and time (whole seconds of Unix time)."""

    number: int
    hash: bytes
    parent: bytes
    timestamp: int
    base_fee: int | None = None  # None on chains without EIP-1559


class _Busy(Exception):
    """This URL cannot answer now; another one or a later time may."""


class Rpc:
    """One chain. Use ``async with``; may be used by any number of tasks at once."""

    def __init__(
        self,
        urls: Sequence[str],
        *,
        chain_id: int | None = None,
        timeout_s: float = TIMEOUT_S,
        patience_s: float = PATIENCE_S,
    ) -> None:
        assert urls, "a network file names at least one RPC URL"
        self._urls = list(urls)
        self._timeout_s = timeout_s
        self._patience_s = patience_s
        self._expected = chain_id
        self._checked: set[str] = set()  # URLs that said the right chain id since they last failed
        self._good = 0  # index of the URL that answered last
        self._ids = itertools.count(1)
        limits = httpx.Limits(max_connections=MAX_CONNECTIONS, max_keepalive_connections=MAX_CONNECTIONS)
        # a proxy from the environment is right for a public node and wrong for one on this machine
        direct = {"all://127.0.0.1": None, "all://localhost": None, "all://[::1]": None}
        # loading the certificates takes 20 ms and some megabytes: only where there is a URL that needs them
        secure = any(url.startswith("https:") for url in urls)
        tls = httpx.create_ssl_context() if secure else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._http = httpx.AsyncClient(timeout=timeout_s, limits=limits, mounts=direct, verify=tls)

    def __repr__(self) -> str:
        return f"<Rpc {self._urls[self._good]} chain={self._expected}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        with trio.CancelScope(shield=True):
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
        problem = ""
        with trio.move_on_after(self._patience_s):
            for round_ in itertools.count():
                wrong: list[ChainError] = []
                for step in range(len(self._urls)):
                    index = (self._good + step) % len(self._urls)
                    url = self._urls[index]
                    try:
                        await self._check_chain(url)
                        answer = await self._post(url, body)
                    except _Busy as error:
                        problem = f"{url}: {error}"
                        continue
                    except ChainError as error:
                        wrong.append(error)
                        continue
                    self._good = index
                    return answer
                if len(wrong) == len(self._urls):
                    raise wrong[0]
                await trio.sleep(BACKOFF_S[min(round_, len(BACKOFF_S) - 1)])
        raise ChainError(
            "chain_unavailable",
            f"The chain did not answer within {self._patience_s:g} s ({problem or 'no answer'}).",
            reverted=False,
            remedy="Check that its node runs and that the RPC URL is right.",
        )

    async def _check_chain(self, url: str) -> None:
        """Refuse a URL that speaks for another chain: what we sign for this one could be replayed or lost there."""
        if url in self._checked:
            return
        answer = await self._post(url, self._request("eth_chainId", ()))
        found = int(self._result(answer, "eth_chainId"), 16)
        if self._expected is None:
            self._expected = found
        if found != self._expected:
            raise ChainError(
                "wrong_chain",
                f"{url} is chain {found}, this network is on chain {self._expected}.",
                reverted=False,
                remedy="Use the RPC URL that belongs to the network file, or the network file of this chain.",
            )
        self._checked.add(url)

    async def _post(self, url: str, body: Any) -> Any:
        try:
            async with self._http.stream("POST", url, json=body) as response:
                if response.status_code == 429 or response.status_code >= 500:
                    raise _Busy(f"HTTP status {response.status_code}")
                if response.status_code != 200:
                    raise _Busy(f"HTTP status {response.status_code}: is this an RPC URL?")
                data = bytearray()
                async for part in response.aiter_bytes():
                    data += part
                    if len(data) > MAX_RESPONSE_BYTES:
                        raise _Busy(f"an answer of more than {MAX_RESPONSE_BYTES} bytes")
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            self._checked.discard(url)  # what comes back under this address may be another chain
            raise _Busy(str(error) or type(error).__name__) from None
        try:
            answer = json.loads(data)
        except (ValueError, RecursionError):
            raise _Busy("the answer is not JSON") from None
        _check_shape(answer, many=isinstance(body, list))
        return answer

    def _result(self, answer: dict[str, Any], method: str) -> Any:
        error = answer.get("error")
        if error is None:
            return answer.get("result")
        raise error_of(error, method)


def block_of(found: dict[str, Any]) -> Block:
    """A block of a JSON-RPC answer."""
    fee = found.get("baseFeePerGas")
    return Block(
        number=int(found["number"], 16),
        hash=bytes.fromhex(found["hash"][2:]),
        parent=bytes.fromhex(found["parentHash"][2:]),
        timestamp=int(found["timestamp"], 16),
        base_fee=None if fee is None else int(fee, 16),
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
            remedy="Send it some of the chain's own coin (on a local network: ask the faucet).",
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


def _check_shape(answer: Any, *, many: bool) -> None:
    """_Busy where this is no JSON-RPC answer, or one that says: later."""
    answers = answer if many and isinstance(answer, list) else [answer]
    for each in answers:
        if not isinstance(each, dict) or not ("result" in each or isinstance(each.get("error"), dict)):
            raise _Busy("the answer is not JSON-RPC")
        error = each.get("error")
        if error is not None and error.get("code") in _BUSY_CODES and not _asks_for_less(error):
            raise _Busy(f"busy: {str(error.get('message', ''))[: abi.SHOWN_TEXT]}")
    if many and not isinstance(answer, list):
        raise _Busy(f"a batch was refused: {str(answer.get('error', ''))[: abi.SHOWN_TEXT]}")


def _asks_for_less(error: dict[str, Any]) -> bool:
    """The same code also says "query returned more than 10000 results": there waiting does not help."""
    message = str(error.get("message", "")).lower()
    return "result" in message or "range" in message
