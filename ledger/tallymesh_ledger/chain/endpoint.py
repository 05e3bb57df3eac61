"""One RPC URL: what it said last, how long it is left alone, and one round trip to it.

A URL that failed rests, a little longer each time, and while it is not known to be well again only one task at a time
tries it: however many tasks wait for a chain that is away, it is asked a few times a minute. This module knows the
outer form of JSON-RPC, and no method.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import trio

from tallymesh.errors import ChainError
from tallymesh_ledger.chain import abi
from tallymesh_ledger.chain.http import Answer, Http, TooLong

REST_S = (0.1, 0.2, 0.5, 1.0, 2.0)  # after the first failure, the second …; the last one repeats
RETRY_AFTER_MAX_S = 120.0  # of what a provider asks for: a header must not silence a URL for ever
WRONG_CHAIN_S = 30.0  # until a URL that spoke for another chain is asked which one it is again
LIMITED = 429

# What public nodes answer when they want to be asked later or elsewhere (Infura, Alchemy, QuickNode)
_BUSY_CODES = {-32005, -32016, -32097, LIMITED}


class Busy(Exception):
    """This URL cannot answer now; another one or a later time may. `rest_s`: how long it asked to be left alone."""

    def __init__(self, sentence: str, rest_s: float = 0.0) -> None:
        self.rest_s = rest_s
        super().__init__(sentence)


class Endpoint:
    """One URL. `head` is the newest block that it named when asked, None where it was not; times are trio's."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.checked = False  # it said the right chain id, and did not fail since
        self.wrong: ChainError | None = None  # it spoke for another chain
        self.head: int | None = None
        self.behind = 0  # blocks, where other URLs know newer ones
        self.rest_until = 0.0
        self.problem = ""  # why it could not be used the last time, "" if it could
        self._failures = 0
        self._failed_at = -1.0
        self._trying = False

    def __repr__(self) -> str:
        return f"<Endpoint {self.url} failures={self._failures} head={self.head}>"

    @property
    def well(self) -> bool:
        return not self._failures and not self.wrong

    def free(self, now: float) -> bool:
        """Whether it may be asked now."""
        return not self._trying and now >= self.rest_until

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Around a round trip: keeps others away from a URL that may still be down, and keeps count. Busy passes."""
        started, alone = trio.current_time(), not self.well
        self._trying = alone
        try:
            yield
        except Busy as error:
            self._fail(error, started)
            raise
        except ChainError as error:
            if error.code == "wrong_chain":
                self.wrong, self.problem = error, error.sentence
                self.rest_until = trio.current_time() + WRONG_CHAIN_S
            raise
        else:
            self._failures, self.rest_until, self.wrong, self.problem = 0, 0.0, None, ""
        finally:
            if alone:
                self._trying = False

    def _fail(self, error: Busy, started: float) -> None:
        now = trio.current_time()
        if started >= self._failed_at:  # not for each of many that were on their way when the first one failed
            self._failures += 1
            self._failed_at = now
        self.problem = str(error)
        rest_s = REST_S[min(self._failures, len(REST_S)) - 1]
        self.rest_until = max(self.rest_until, now + max(rest_s, min(error.rest_s, RETRY_AFTER_MAX_S)))

    async def post(self, http: Http, body: Any) -> Any:
        """The answer, of the right shape. Busy where there is none."""
        try:
            answer = await http.post(self.url, json.dumps(body, separators=(",", ":")).encode())
        except TooLong as error:
            raise Busy(str(error)) from None
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            self.checked = False  # what comes back under this address may be another chain
            raise Busy(str(error) or type(error).__name__) from None
        return _answer(answer, many=isinstance(body, list))


def _answer(response: Answer, *, many: bool) -> Any:
    status = response.status
    if status == LIMITED or status >= 500:
        raise Busy(f"HTTP status {status}", _retry_after_s(response))
    try:
        answer = json.loads(response.data)
        _check_shape(answer, many=many)
    except (ValueError, RecursionError):
        words = "the answer is not JSON" if status == 200 else f"HTTP status {status}: is this an RPC URL?"
        raise Busy(words) from None
    return answer  # also with another status than 200: some providers send their refusals with 400


def _retry_after_s(response: Answer) -> float:
    """The header's seconds (RFC 9110, 10.2.3); a date is read as no wish: clocks differ."""
    text = response.headers.get("retry-after", "")
    return float(text) if text.isascii() and text.isdigit() else 0.0


def _check_shape(answer: Any, *, many: bool) -> None:
    """Busy where this is no JSON-RPC answer, or one that says: later."""
    answers = answer if many and isinstance(answer, list) else [answer]
    for each in answers:
        if not isinstance(each, dict) or not ("result" in each or isinstance(each.get("error"), dict)):
            raise Busy("the answer is not JSON-RPC")
        error = each.get("error")
        if error is not None and error.get("code") in _BUSY_CODES and not _asks_for_less(error):
            raise Busy(f"busy: {str(error.get('message', ''))[: abi.SHOWN_TEXT]}")
    if many and not isinstance(answer, list):
        raise Busy(f"a batch was refused: {str(answer.get('error', ''))[: abi.SHOWN_TEXT]}")


def _asks_for_less(error: dict[str, Any]) -> bool:
    """The same code also says "query returned more than 10000 results": there waiting does not help."""
    message = str(error.get("message", "")).lower()
    return "result" in message or "range" in message
