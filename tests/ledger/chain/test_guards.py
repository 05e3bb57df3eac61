"""One case for each check of the chain client that the other tests pass by."""

from __future__ import annotations

import json

import httpx
import pytest

from tallymesh.errors import ChainError
from tallymesh_ledger.chain import Rpc

VIRTUAL_TIME = True  # nobody here waits for a real second

CHAIN = 4_242


def answered(request: httpx.Request) -> httpx.Response:
    """A node that answers each batch but for its last request."""
    body = json.loads(request.content)
    asked = body[:-1] if isinstance(body, list) else [body]
    said = [{"jsonrpc": "2.0", "id": each["id"], "result": hex(CHAIN)} for each in asked]
    return httpx.Response(200, json=said if isinstance(body, list) else said[0])


async def test_an_answer_that_is_left_out_of_a_batch_is_missed_and_not_made_up() -> None:
    async with Rpc(["http://good.test/"], chain_id=CHAIN, transport=httpx.MockTransport(answered)) as rpc:
        with pytest.raises(ChainError, match="left eth_gasPrice out") as caught:
            await rpc.batch([("eth_chainId", []), ("eth_gasPrice", [])])
    assert caught.value.code == "chain_unavailable"
