"""All checks in an order in which the first thing to mend comes first. What one check needs of another that failed is
left out: it would only say the same again."""

from __future__ import annotations

from collections.abc import Callable

import trio

from tallymesh_node.config import Config
from tallymesh_node.doctor import machine, outside, place
from tallymesh_node.doctor.findings import Finding, ok
from tallymesh_node.machine import measure
from tallymesh_node.store.lock import holder


async def examine(config: Config, say: Callable[[Finding], None] = lambda finding: None) -> list[Finding]:
    """A few seconds; longer only where the chain or all peers are silent. `say` hears of each when it is known."""
    found: list[Finding] = []

    def learn(*new: Finding) -> None:
        found.extend(new)
        for finding in new:
            say(finding)

    here = await trio.to_thread.run_sync(measure, config.home)
    learn(machine.folder(config.home, here), machine.memory(config, here), *machine.allowed(config, here))
    process = holder(config.home)
    learn(*machine.gpus(here, config, runs=process is not None))
    view = None
    if process is not None:
        told, view = await trio.to_thread.run_sync(place.node, config.home, process)
        learn(*told)
    learn(*place.owner(config.home))
    if view is not None:
        config = place.as_it_runs(config, view)
        account: bytes | None = bytes.fromhex(view.account.removeprefix("0x"))
        learn(ok("wallet", f"{view.account}, open in the node that runs"))
    else:
        wallet, key = await trio.to_thread.run_sync(place.wallet, config)
        account = None if key is None else key.address
        learn(wallet)
    file, network = place.network(config)
    learn(file)
    if config.works or config.audits:
        learn(await trio.to_thread.run_sync(machine.sandbox))
    if process is None:
        learn(machine.port(config))
    if network is None:
        return found
    answered, newest = await outside.chain(network)
    learn(answered, await outside.clock(network, newest))
    if answered.state == "ok" and account is not None:
        learn(*await outside.account(network, account, config))
    if process is None and found[0].state == "ok" and all(each.name != "port" or each.state == "ok" for each in found):
        learn(await outside.reach(config, network))
    return found
