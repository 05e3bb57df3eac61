"""`network` and `index`: what this network is, and the index of its events."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from tallymesh_node.cli.output import Json, facts, say_json
from tallymesh_node.cli.source import IndexUrl, NetworkFile, Offline, RpcUrl, Source, when

if TYPE_CHECKING:
    from tallymesh.network import Network
    from tallymesh_ledger.chain import Rpc
    from tallymesh_ledger.index import Progress, Queries

# Views of the contracts and the parameter of the network file that must agree with each.
_AGREED: Final = {
    "Registry": {"slotWei": "slot_wei", "unbondingDelay": "unbonding_s", "classDelay": "class_delay_s"},
    "JobEscrow": {"feeBp": "fee_bp", "leaseMax": "lease_max_s", "lockTail": "lock_tail_s"},
}


def network(
    context: typer.Context,
    network: NetworkFile = None,
    rpc: RpcUrl = None,
    index: IndexUrl = None,
    offline: Offline = False,
    json_: Json = False,
) -> None:
    """What this network is: chain, contracts, parameters, stakes, slots and jobs.

    Parameters are read from the contracts; where the network file says something else, that is told.

    \b
    Examples:
      tallymesh network
      tallymesh network --network mynet.json --rpc https://rpc.example
      tallymesh network --json | jq .jobs
    """
    if context.invoked_subcommand:
        return
    found = Source(network, rpc, index)
    from tallymesh_ledger.index import Queries

    with found.index(offline=offline) as database, database.read() as connection:
        told = {**_file(found.network), **_market(Queries(connection))}
    told |= {"on_chain": None, "differences": []} if offline else found.ask(lambda rpc: _chain(rpc, found.network))
    if json_:
        say_json(told)
    else:
        facts(_lines(told))


def sync(
    follow: Annotated[bool, typer.Option("--follow", help="Keep up with the chain until Ctrl-C.")] = False,
    network: NetworkFile = None,
    rpc: RpcUrl = None,
    index: IndexUrl = None,
    json_: Json = False,
) -> None:
    """Bring the index of events up to the chain. The commands that need it do this by themselves.

    \b
    Examples:
      tallymesh index sync
      tallymesh index sync --follow --index postgresql://mesh@db.example/ledger
    """
    found = Source(network, rpc, index)
    from tallymesh_ledger.index import Database, Follower

    with Database(found.index_url) as database:
        progress = found.catch_up(database)
        _say(database.shown, progress, json_)
        if follow:
            with contextlib.suppress(KeyboardInterrupt):
                found.ask(lambda rpc: Follower(database, rpc, found.network).follow())


def rebuild(network: NetworkFile = None, rpc: RpcUrl = None, index: IndexUrl = None, json_: Json = False) -> None:
    """Make the index anew, from the contracts' first block. Nothing is lost: all of it follows from the chain.

    \b
    Examples:
      tallymesh index rebuild
      tallymesh index rebuild --index postgresql://mesh@db.example/ledger
    """
    found = Source(network, rpc, index)
    from tallymesh_ledger.index import Database

    with Database(found.index_url) as database:
        _say(database.shown, found.catch_up(database, rebuild=True), json_)


def _say(where: str, progress: Progress, as_json: bool) -> None:
    if as_json:
        say_json({"index": where, "block": progress.block, "events": progress.events, "pages": progress.pages,
                  "taken_back": progress.taken_back})  # fmt: skip
        return
    facts([
        ("index", where),
        ("block", f"{progress.block} ({progress.events} new events)"),
        ("taken back", "blocks that the chain has no more" if progress.taken_back else ""),
    ])  # fmt: skip


def _file(network: Network) -> dict[str, Any]:
    contracts = {
        name: value for name in network.contracts.__struct_fields__ if (value := getattr(network.contracts, name))
    }
    return {
        "name": network.name,
        "chain_id": network.chain_id,
        "rpc_urls": list(network.rpc_urls),
        "contracts": contracts,
        "confirmations": network.parameters.confirmations,
    }


def _market(queries: Queries) -> dict[str, Any]:
    """From the events."""
    head, jobs = queries.head(), queries.jobs()
    open_jobs = [job for job in jobs if job.held_wei or job.seats > job.closed_seats]
    return {
        "indexed": {"block": head.number, "time": head.time},
        "jobs": {
            "all": len(jobs), "open": len(open_jobs), "payers": len({job.payer for job in jobs}),
            "held_wei": str(sum(job.held_wei for job in jobs)),
        },
        "seats": {"all": sum(job.seats for job in jobs), "open": sum(job.seats - job.closed_seats for job in jobs)},
        "paid": {
            "wages_wei": str(queries.sums("JobEscrow", "Settled", "amount")),
            "fees_wei": str(queries.sums("JobEscrow", "Settled", "fee")),
            "audits_wei": str(queries.sums("JobEscrow", "AuditPaid", "amount")),
            "audits": queries.number_of("JobEscrow", "AuditPaid"),
        },
        "slots": {
            "bought": queries.sums("Registry", "SlotsBought", "count"),
            "released": queries.number_of("Registry", "SlotReleased"),
        },
    }  # fmt: skip


async def _chain(rpc: Rpc, network: Network) -> dict[str, Any]:
    """From the contracts' views, all at one block."""
    from tallymesh_ledger.chain import Contracts

    contracts = Contracts.of(rpc, network)
    head = await rpc.block()
    views: dict[str, int] = {}
    differences: list[str] = []
    for contract in (contracts.registry, contracts.escrow):
        agreed = _AGREED[contract.NAME]
        values = await contract.read_many([(view, []) for view in agreed], at=head.number)
        for parameter, value in zip(agreed.values(), values, strict=True):
            views[parameter] = int(value)
            filed = getattr(network.parameters, parameter)
            if value != filed:
                differences.append(f"{parameter} is {value} on chain and {filed} in the network file")
    token, registry, escrow = contracts.token, contracts.registry, contracts.escrow
    return {
        "on_chain": {
            "block": head.number, "time": head.timestamp,
            "parameters": {name: str(value) if name.endswith("_wei") else value for name, value in views.items()},
            "supply_wei": str(await token.total_supply(at=head.number)),
            "staked_wei": str(await token.balance_of(registry.address, at=head.number)),
            "escrow_wei": str(await token.balance_of(escrow.address, at=head.number)),
            "fees_to_burn_wei": str(await escrow.fees_to_burn(at=head.number)),
        },
        "differences": differences,
    }  # fmt: skip


def _lines(told: dict[str, Any]) -> list[tuple[str, str]]:
    from tallymesh import amounts

    def mesh(value: str) -> str:
        return amounts.show(int(value))

    jobs, seats, paid, slots, chain = told["jobs"], told["seats"], told["paid"], told["slots"], told["on_chain"]
    payers = f"{jobs['payers']} payer{'s' * (jobs['payers'] != 1)}"
    lines = [
        ("network", f"{told['name']}, chain {told['chain_id']}"),
        ("chain nodes", ", ".join(told["rpc_urls"])),
        *((name, str(value)) for name, value in told["contracts"].items() if name != "deployed_block"),
        ("jobs", f"{jobs['all']} of {payers}, {jobs['open']} open, {mesh(jobs['held_wei'])} in them"),
        ("seats", f"{seats['all']}, {seats['open']} open"),
        ("paid", f"{mesh(paid['wages_wei'])} in wages (fees {mesh(paid['fees_wei'])}), "
                 f"{mesh(paid['audits_wei'])} for {paid['audits']} audit{'s' * (paid['audits'] != 1)}"),
        ("slots", f"{slots['bought'] - slots['released']} live, {slots['released']} released"),
        ("as of", f"block {told['indexed']['block']}, {when(told['indexed']['time'])} UTC"),
    ]  # fmt: skip
    if chain:
        terms = chain["parameters"]
        lines += [
            ("supply", mesh(chain["supply_wei"])),
            ("staked", f"{mesh(chain['staked_wei'])}, {mesh(terms['slot_wei'])} a slot"),
            ("escrow", f"{mesh(chain['escrow_wei'])}, {mesh(chain['fees_to_burn_wei'])} of it to be burned"),
            ("terms", f"fee {terms['fee_bp'] / 100:g} %, leases up to {terms['lease_max_s']} s, unbonding "
                      f"{terms['unbonding_s']} s, locks for {terms['lock_tail_s']} s after a seat"),
        ]  # fmt: skip
    return [*lines, *(("DIFFERS", each) for each in told["differences"])]
