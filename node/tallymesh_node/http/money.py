"""What the API takes about the account's money: checked here, done by the node."""

from __future__ import annotations

import msgspec
import trio_asyncio
from aiohttp import web

from tallymesh import api
from tallymesh.decoding import UNREADABLE
from tallymesh.errors import CallerError
from tallymesh_node.carriers.terms import SLOTS_MAX
from tallymesh_node.http.answers import json_answer
from tallymesh_node.http.blobs import read_body
from tallymesh_node.http.facade import NodeFacade

MAX_BODY_BYTES = 4096  # three short fields
_decoder = msgspec.json.Decoder(api.WithdrawRequest)


async def withdraw(request: web.Request, node: NodeFacade) -> web.Response:
    """POST /v1/withdraw: answered when it was carried."""
    return json_answer(await trio_asyncio.trio_as_aio(node.withdraw)(await _withdrawal(request)))


async def _withdrawal(request: web.Request) -> api.WithdrawRequest:
    body = await read_body(request, MAX_BODY_BYTES)
    try:
        wanted = _decoder.decode(body)
    except UNREADABLE as error:
        raise CallerError("bad_request", f"Not a withdrawal: {error}.") from None
    fee = wanted.fee_max_wei
    if not (fee.isascii() and fee.isdecimal() and len(fee) <= 29):  # uint96
        raise CallerError("bad_amount", "fee_max_wei is wei as a decimal string.")
    if not 0 <= wanted.slots <= SLOTS_MAX:
        raise CallerError("bad_request", f"0 to {SLOTS_MAX} slots are released by one request.")
    return wanted
