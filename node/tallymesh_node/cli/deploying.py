"""`network deploy` and `network presets`: a network of one's own on any EVM chain, and what is known of public ones."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tallymesh.errors import CallerError, ChainError
from tallymesh_node.cli.account import PasswordFile, open_wallet
from tallymesh_node.cli.begun import BegunFile
from tallymesh_node.cli.output import Json, facts, say_json

if TYPE_CHECKING:
    from tallymesh.network import Network
    from tallymesh.parameters import Parameters
    from tallymesh_ledger.chain import Rpc
    from tallymesh_ledger.chain.abi import Machine
    from tallymesh_ledger.chain.randomness import Randomness
    from tallymesh_ledger.keys import AccountKey
    from tallymesh_ledger.presets import Preset


def deploy(
    out: Annotated[Path, typer.Option(help="The network file to write.")] = Path("network.json"),
    preset: Annotated[
        str | None, typer.Option(help="What is known of a public chain: tallymesh network presets.")
    ] = None,
    rpc: Annotated[list[str] | None, typer.Option(help="A chain node's URL; several are tried in order.")] = None,
    name: Annotated[str | None, typer.Option(help="The network's name; the preset's.")] = None,
    parameters: Annotated[
        Path | None, typer.Option(help="JSON file that replaces single parameters of the protocol.")
    ] = None,
    bootstrap: Annotated[list[str] | None, typer.Option(help="Address of a peer where others join.")] = None,
    password_file: PasswordFile = None,
    accepts_only: Annotated[
        bool, typer.Option("--accepts-only", help="Without claims, accusations and Court: only Accepts pay.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before the coin is spent.")] = False,
    json_: Json = False,
) -> None:
    """Put the contracts on a chain, paid by the wallet's account, and write the network file that names them.

    Claims and the Court draw from block hashes. What the chain has is found out before anything is paid for; where it
    has none, such a network needs --accepts-only, or a preset that says so.

    The account receives the supply of MESH but for what Rewards hands out. Nothing else may be sent from it meanwhile.
    A file that exists is not overwritten. Where it breaks off, the same command goes on: what is on the chain already
    is kept.

    \b
    Examples:
      tallymesh network deploy --preset sepolia --out mynet.json
      tallymesh network deploy --rpc http://127.0.0.1:8545 --name mine --yes
    """
    import trio

    from tallymesh import network as network_file
    from tallymesh_ledger.keys import checksum
    from tallymesh_ledger.presets import preset as find
    from tallymesh_node.config import load

    known = find(preset) if preset else None
    urls = tuple(rpc or (known.rpc_urls if known else ()))
    if not urls:
        raise CallerError("no_rpc", "No chain was named.", remedy="Give --rpc URL, or --preset NAME.")
    if out.exists():
        raise CallerError("file_exists", f"There is a file at {out} already.", remedy="Name another one with --out.")
    terms = _parameters(parameters, known)
    key = open_wallet(load().home, password_file)
    where = known.title if known else urls[0]
    question = f"Deploy from {checksum(key.address)} on {where}? This spends {_coin(known)}."
    if not yes and not typer.confirm(question, err=True):
        raise CallerError("not_confirmed", "Nothing was deployed.")
    title = name or (known.name if known else "network")
    made = trio.run(_deploy, urls, key, terms, known, title, bootstrap or [], accepts_only, out)
    network_file.save(made, out)
    BegunFile(out).drop()
    pays = "Accepts and claims" if made.contracts.claims else "Accepts only"
    told = {"network": str(out), "chain_id": made.chain_id, "pays": pays, **_addresses(made)}
    if json_:
        say_json(told)
    else:
        facts([(label.replace("_", " "), str(value)) for label, value in told.items()])


def presets(json_: Json = False) -> None:
    """Public EVM chains of which chain id, URLs, fees and confirmations are known. None of them was tried from here.

    \b
    Examples:
      tallymesh network presets
      tallymesh network presets --json | jq '.[] | select(.name == "theta")'
    """
    import msgspec

    from tallymesh_ledger.presets import presets as known

    if json_:
        say_json([msgspec.to_builtins(each) for each in known()])
        return
    for each in known():
        seconds = f"{each.chain.block_ms / 1000:g} s a block, final after {each.confirmations}"
        print(
            f"{each.name:<17} {each.title}: chain {each.chain_id}, {each.chain.coin}, {each.chain.fees} fees, {seconds}"
        )
        for note in each.notes:
            print(f"{'':<17}   {note}")


def _coin(known: Preset | None) -> str:
    return known.chain.coin if known else "the chain's own coin"


def _parameters(path: Path | None, known: Preset | None) -> Parameters:
    """The protocol's, with the chain's confirmations, and with what the file replaces."""
    import msgspec

    from tallymesh.parameters import Parameters

    given: dict[str, Any] = {"confirmations": known.confirmations} if known else {}
    try:
        given |= json.loads(path.read_bytes()) if path else {}
        return msgspec.convert(given, Parameters)
    except (OSError, ValueError, TypeError) as error:
        raise CallerError("bad_parameters", f"{path} holds no parameters: {error}") from None


async def _deploy(
    urls: tuple[str, ...],
    key: AccountKey,
    terms: Parameters,
    known: Preset | None,
    name: str,
    bootstrap: list[str],
    accepts_only: bool,
    out: Path,
) -> Network:
    import msgspec

    from tallymesh.chain_facts import ANY_CHAIN
    from tallymesh.network import Network
    from tallymesh_ledger.chain import Rpc, Sender, machine
    from tallymesh_ledger.deploy import begin, untouched
    from tallymesh_ledger.deploy import deploy as put
    from tallymesh_ledger.keys import checksum

    chain = known.chain if known else ANY_CHAIN
    async with Rpc(urls, chain_id=known.chain_id if known else None) as rpc:
        chain_id = await rpc.known_chain_id()
        runs = await machine.choose(rpc)
        accepts_only = accepts_only or (known is not None and known.randomness == "none")
        draws = "none" if accepts_only else await _randomness(rpc, runs)
        if draws == "none":
            terms = msgspec.structs.replace(terms, claim_bond_wei=0)  # nobody can claim it
        sender, file = Sender(rpc, key, facts=chain), BegunFile(out)
        of = {"account": checksum(key.address), "chain_id": chain_id, "randomness": draws, "machine": runs}
        of |= {"parameters": msgspec.to_builtins(terms)}
        begun = file.found(of)
        if begun is None:
            begun = await begin(sender)
            file.keep(begun, of)
        else:
            print("going on with the deployment that broke off …", file=sys.stderr, flush=True)
        try:
            contracts = await put(sender, terms, randomness=draws, machine=runs, begun=begun)
        except ChainError as error:
            # contracts that can never know each other, or none at all: the next attempt may be of other terms
            if error.code == "deploy_raced" or (error.code == "no_gas_coin" and await untouched(sender, begun)):
                file.drop()
            raise
    return Network(
        name=name, chain_id=chain_id, rpc_urls=urls, contracts=contracts, parameters=terms, bootstrap=tuple(bootstrap),
        chain=chain,
    )  # fmt: skip


async def _randomness(rpc: Rpc, runs: Machine) -> Randomness:
    """What claims and the Court draw from on this chain. ChainError `no_randomness` where there is nothing."""
    from tallymesh_ledger.chain import randomness

    found = await randomness.find(rpc)
    if found == "none" or runs != "cancun":
        why = "gives contracts no hashes of its own blocks" if found == "none" else "has an EVM older than Cancun's"
        raise ChainError(
            "no_randomness",
            f"This chain {why}: claims and the Court cannot run on it. Nothing was sent.",
            reverted=False,
            remedy="With --accepts-only a network is made without them: workers are paid by Accepts alone.",
        )
    return found


def _addresses(made: Network) -> dict[str, Any]:
    import msgspec

    return {key: value for key, value in msgspec.to_builtins(made.contracts).items() if value}
