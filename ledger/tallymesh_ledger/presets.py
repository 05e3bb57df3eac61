"""What is known of public EVM chains, as data: `presets.json` beside this module.

Collected from the chains' documentation and sources; not tried from here. A preset fills a network file when the
contracts are deployed; nothing reads it afterwards, so a network file may say otherwise.
"""

from __future__ import annotations

import functools
from importlib import resources
from typing import Literal

import msgspec

from tallymesh.chain_facts import ChainFacts
from tallymesh.errors import CallerError
from tallymesh_ledger.chain.abi import Machine
from tallymesh_ledger.chain.randomness import Randomness


class Preset(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One chain. `block_hash`: what BLOCKHASH gives in a contract: the chain's own hashes (`own`), the same where one
    party makes every block (`sequencer`), hashes of other numbers than the chain's blocks have (`other_numbers`), or
    nothing at all (`none`). `randomness`: what the contracts draw from there, `none` where only Accepts pay.
    `machine`: the newest hard fork whose instructions it is known to have."""

    name: str
    title: str
    chain_id: int
    testnet: bool
    rpc_urls: tuple[str, ...]
    explorer: str
    confirmations: int  # blocks after which one counts as final here
    block_hash: Literal["own", "sequencer", "other_numbers", "none"]
    randomness: Randomness
    machine: Machine
    chain: ChainFacts
    notes: tuple[str, ...] = ()


@functools.cache
def presets() -> tuple[Preset, ...]:
    data = resources.files("tallymesh_ledger").joinpath("presets.json").read_bytes()
    return msgspec.json.decode(data, type=tuple[Preset, ...])


def preset(name: str) -> Preset:
    """CallerError `unknown_preset` with the names there are."""
    for each in presets():
        if each.name == name:
            return each
    raise CallerError(
        "unknown_preset", f"There is no preset {name!r}.", remedy=f"Known are {', '.join(p.name for p in presets())}."
    )
