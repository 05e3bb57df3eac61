"""`withdraw --relayed`: asks the running node, which has others send what it signs. No gas is needed."""

from __future__ import annotations

from tallymesh_node.cli.output import facts, say_json


def withdraw(*, slots: int, deposit: bool, max_fee: str | None, as_json: bool) -> None:
    from tallymesh import amounts, api
    from tallymesh.client.session import current

    fee = str(amounts.parse(max_fee)) if max_fee is not None else "0"
    request = api.WithdrawRequest(slots=slots, deposit=deposit, fee_max_wei=fee)
    view = current().post("/v1/withdraw", api.encode(request), api.WithdrawView, timeout_s=WAIT_S)
    if as_json:
        say_json(view)
        return
    lines = [("carried", f"by {view.carrier}, for at most {amounts.show(int(view.fee_wei))}")]
    facts([*lines, *([("transaction", "0x" + view.transaction)] if view.transaction else [])])


WAIT_S = 600.0  # several carriers may be asked, one after the other, and each waits for a block
