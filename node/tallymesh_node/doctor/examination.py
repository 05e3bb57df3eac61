"""All checks in an order in which the first thing to mend comes first. What one check needs of another that failed is
left out: it would only say the same again."""

from __future__ import annotations

import trio

from tallymesh_node.config import Config
from tallymesh_node.doctor import machine, outside, place
from tallymesh_node.doctor.findings import Finding
from tallymesh_node.machine import measure
from tallymesh_node.store.lock import holder


async def examine(config: Config) -> list[Finding]:
    """A few seconds; longer only where the chain or all peers are silent."""
    here = await trio.to_thread.run_sync(measure, config.home)
    found = [machine.folder(config.home, here), machine.memory(config, here), *machine.allowed(config, here)]
    found += machine.gpus(here)
    process = holder(config.home)
    if process is not None:
        said, _ = await trio.to_thread.run_sync(place.node, config.home, process)
        found += said
    found += place.owner(config.home)
    wallet, key = await trio.to_thread.run_sync(place.wallet, config)
    file, network = place.network(config)
    found += [wallet, file]
    if config.works or config.audits:
        found.append(await trio.to_thread.run_sync(machine.sandbox))
    if process is None:
        found.append(machine.port(config))
    if network is None:
        return found
    answered, newest = await outside.chain(network)
    found += [answered, await outside.clock(network, newest)]
    if answered.state == "ok" and key is not None:
        found += await outside.account(network, key.address, config)
    if process is None and found[0].state == "ok" and all(each.name != "port" or each.state == "ok" for each in found):
        found.append(await outside.reach(config, network))
    return found
