"""The network file: chain, contracts, parameters, bootstrap, faucet. It is all that differs between networks."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from tallymesh import paths
from tallymesh.chain_facts import ANY_CHAIN, ChainFacts
from tallymesh.decoding import UNREADABLE
from tallymesh.errors import CallerError
from tallymesh.parameters import Parameters

SAID_MAX = 300  # characters of what is wrong with a file


class Contracts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Addresses as EIP-55 hex."""

    token: str
    registry: str
    escrow: str
    deployed_block: int = 0  # where event catch-up begins
    claims: str = ""  # "" on a network without: there only Accepts pay
    accusations: str = ""
    court: str = ""
    rewards: str = ""


class Network(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One network. `rpc_urls` are tried in order; `faucet` is a URL or "" where there is none."""

    name: str
    chain_id: int
    rpc_urls: tuple[str, ...]
    contracts: Contracts
    parameters: Parameters = Parameters()
    bootstrap: tuple[str, ...] = ()
    faucet: str = ""
    chain: ChainFacts = ANY_CHAIN

    @property
    def topic(self) -> str:
        """Prefix of gossip topics and stream protocols: peers of two networks never understand each other."""
        return f"tallymesh/{self.name}/{self.chain_id}/{self.contracts.escrow[2:10].lower()}"


def load(path: Path) -> Network:
    """Read a network file (JSON). CallerError with the line where it is wrong."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Network)
    except FileNotFoundError:
        local = paths.home() / "up" / "network.json"
        up = f"'tallymesh up' wrote {local}" if local.exists() else "'tallymesh up' makes a local network"
        raise CallerError(
            "no_network",
            f"There is no network file at {path}.",
            remedy=f"Pass --network FILE, or copy that file to this place once; {up}.",
        ) from None
    except OSError as error:
        raise CallerError("bad_network", f"{path} cannot be read: {error.strerror}.") from None
    except UNREADABLE as error:  # it repeats the name of a field that nobody knows, however long that is
        raise CallerError("bad_network", f"{path} is not a network file: {str(error)[:SAID_MAX]}") from None


def save(network: Network, path: Path) -> None:
    """Write it whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".part")
    draft.write_bytes(msgspec.json.format(msgspec.json.encode(network), indent=2) + b"\n")
    os.replace(draft, path)
