"""The index against the real contracts: what it says adds up to what the chain says, whatever happened on the way."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from fakes.contract_chain import Chain, Direct, a_job, job_done
from fakes.contract_world import Exact, Job, World
from tallymesh.errors import CallerError, ChainError
from tallymesh_ledger.chain import abi
from tallymesh_ledger.index import Database, Follower, Progress, Purse, Queries, effects, schema
from tallymesh_ledger.index import catch_up as module
from tallymesh_ledger.index.page import INDEXED


def on_chain(world: World, account: bytes, jobs: list[Job]) -> dict[Purse, int]:
    """What the contracts' own views say."""
    stake = world.read("Registry", "stakeOf", account)
    held = 0
    for job in jobs:
        if job.payer.address == account:
            state = world.read("JobEscrow", "jobOf", job.id)
            held += state["free"] + state["reserve"]
            for id_ in job.seats:
                seat = world.read("JobEscrow", "seatOf", id_)
                held += (seat["units"] - seat["paidUnits"]) * job.price if seat["state"] == 1 else 0
                held += seat["bond"]
    return {
        Purse.TOKENS: world.read("Token", "balanceOf", account),
        Purse.CREDITS: world.read("JobEscrow", "creditOf", account),
        Purse.STAKE: sum(stake),
        Purse.LOCKED: stake[1],
        Purse.ESCROW: held,
        Purse.AWARDS: 0,  # nobody quarrels here: see test_quarrels.py
        Purse.BONDS: 0,
        Purse.REWARDS: 0,
    }


async def caught_up(database: Database, chain: Chain, rpc: Direct | None = None) -> Follower:
    chain.mine(chain.network.parameters.confirmations)
    follower = Follower(database, rpc or chain.rpc(), chain.network)
    await follower.catch_up()
    return follower


def everything(database: Database) -> dict[str, list[tuple[Any, ...]]]:
    """Every row, in one order."""
    with database.read() as connection:
        return {
            table.name: sorted(
                tuple(bytes(value) if isinstance(value, memoryview) else value for value in row)
                for row in connection.execute(table.select())
            )
            for table in (schema.events, schema.moves, schema.jobs, schema.seats)
        }


@pytest.mark.slow
async def test_the_moves_of_every_account_add_up_to_what_the_contracts_say(database: Database, chain: Chain) -> None:
    first = job_done(chain)
    second = Job(chain.world, workers=1, positions=3)  # left open: money in seat, reserve, lock
    chain.world.call("JobEscrow", "open", second.order, [second.seating(0)], by=second.payer)
    await caught_up(database, chain)
    with database.read() as connection:
        queries = Queries(connection)
        accounts = queries.accounts()
        parties = [first.payer, *first.workers, second.payer, *second.workers, chain.world.bank]
        assert {key.address for key in parties} <= set(accounts)
        assert chain.world.contracts["JobEscrow"] in accounts
        for account in accounts:
            if any(account):  # burned tokens leave to the zero address, which holds nothing
                assert queries.totals(account) == on_chain(chain.world, account, [first, second]), account.hex()
        opened, done = queries.jobs(second.payer.address), queries.jobs(first.payer.address)
        assert [(job.seats, job.closed_seats) for job in (*opened, *done)] == [(1, 0), (2, 2)]
        assert opened[0].held_wei == second.order.wages + second.order.audit_reserve
        assert done[0].held_wei == 0


@pytest.mark.slow
async def test_a_history_runs_through_the_balances_and_joins_pay_with_its_units(
    database: Database, chain: Chain
) -> None:
    job = job_done(chain)
    await caught_up(database, chain)
    worker, price = job.workers[0].address, job.price
    with database.read() as connection:
        queries = Queries(connection)
        entries = list(queries.history(worker))
        running = dict.fromkeys(Purse, 0)
        for entry in entries:
            running[entry.purse] += entry.amount_wei
            assert entry.balance_wei == running[entry.purse] >= 0
        assert running == queries.totals(worker)
        assert [(e.start, int(e.details["units"]), e.amount_wei) for e in entries if e.event == "Settled"] == [
            (0, 1, price * 98 // 100), (1, 6, 5 * price * 98 // 100)
        ]  # fmt: skip
        assert {e.job for e in entries if e.event == "Settled"} == {job.id}
        (seat,) = queries.seats(job.seats[0][:5])
        assert seat == queries.seats_of(worker)[0]
        assert (seat.paid_units, seat.closed > 0, seat.payer) == (6, True, job.payer.address)
        assert [(s.tally, s.start, s.units) for s in seat.settled] == [(1, 0, 1), (3, 1, 6)]
        assert queries.seats(b"\xff" * 4) == []
        (period,) = queries.earned(worker, 10**9)
        assert (period.wei, period.units, period.seats, period.audits) == (6 * price * 98 // 100, 6, 1, 0)
        assert period.fee_wei == 6 * price * 2 // 100
        (audit,) = queries.earned(job.workers[1].address, 86_400)
        assert (audit.wei, audit.audits, audit.units) == (price * 11 // 10 + 4 * price * 98 // 100, 1, 4)
        assert queries.earned(worker, 86_400, since=chain.world.now + 1) == []


@pytest.mark.slow
async def test_pages_of_any_size_and_a_stop_between_them_give_the_same_index(
    open_database: Callable[[], Database], chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_done(chain)
    whole = open_database()
    await caught_up(whole, chain)
    monkeypatch.setattr(module, "PAGE_LOGS_FEW", 0)  # pages do not grow
    for size in (1, 7):
        monkeypatch.setattr(module, "PAGE_BLOCKS", size)
        parts = open_database()
        rpc = chain.rpc()
        seen = 0

        def stop(method: str, params: Any, rpc: Direct = rpc) -> Any:
            nonlocal seen
            seen += method == "eth_getLogs"
            return (
                {"error": {"code": -32000, "message": "gone away"}}
                if method == "eth_getLogs" and seen % 3 == 0
                else None
            )

        rpc.rule = stop
        monkeypatch.setattr(module, "PAGE_BLOCKS_MIN", size)
        for _ in range(100):
            try:
                await Follower(parts, rpc, chain.network).catch_up()  # a new one each time, as after a crash
                break
            except ChainError:
                continue
        assert everything(parts) == everything(whole)
        spans = [int(p[0]["toBlock"], 16) - int(p[0]["fromBlock"], 16) + 1 for m, p in rpc.asked if m == "eth_getLogs"]
        assert max(spans) == size


@pytest.mark.slow
async def test_a_page_that_the_node_refuses_is_halved(database: Database, chain: Chain) -> None:
    job_done(chain)
    chain.mine(200)
    rpc = chain.rpc()

    def at_most_100(method: str, params: Any) -> Any:
        if method == "eth_getLogs" and int(params[0]["toBlock"], 16) - int(params[0]["fromBlock"], 16) >= 100:
            return {"error": {"code": -32000, "message": "block range is too wide"}}
        return None

    rpc.rule = at_most_100
    follower = await caught_up(database, chain, rpc)
    assert follower.progress.block == chain.head - chain.network.parameters.confirmations
    assert follower.progress.pages >= 3


async def test_a_node_that_refuses_even_small_pages_is_an_error(database: Database, chain: Chain) -> None:
    rpc = chain.rpc()
    rpc.rule = lambda m, p: {"error": {"code": -32000, "message": "no logs here"}} if m == "eth_getLogs" else None
    chain.mine(10)
    with pytest.raises(ChainError, match="no logs here"):
        await Follower(database, rpc, chain.network).catch_up()


async def test_what_is_not_final_yet_waits(database: Database, chain: Chain) -> None:
    await caught_up(database, chain)
    stranger = chain.world.account().address
    chain.world.call("Token", "transfer", stranger, 5, by=chain.world.bank)
    rpc = chain.rpc()
    for _ in range(chain.network.parameters.confirmations):
        await Follower(database, rpc, chain.network).catch_up()
        with database.read() as connection:
            assert Queries(connection).totals(stranger)[Purse.TOKENS] == 0
        chain.mine()
    await Follower(database, rpc, chain.network).catch_up()
    with database.read() as connection:
        assert Queries(connection).totals(stranger)[Purse.TOKENS] == 5


@pytest.mark.slow
async def test_reorganised_blocks_are_taken_back_and_the_others_read(
    open_database: Callable[[], Database], chain: Chain
) -> None:
    index = open_database()
    chain.world.funded(10**18)
    wind_back = chain.mark()
    job = a_job(chain)
    follower = await caught_up(index, chain)
    wind_back()
    with index.read() as connection:
        assert len(Queries(connection).jobs()) == 1
    stranger = chain.world.account().address
    chain.world.call("Token", "transfer", stranger, 7, by=chain.world.bank)
    chain.mine(40)  # the new branch is the longer one
    progress = await follower.catch_up()
    assert progress.taken_back == 1
    fresh = open_database()
    await caught_up(fresh, chain)
    await follower.catch_up()
    assert everything(index) == everything(fresh)
    with index.read() as connection:
        queries = Queries(connection)
        assert queries.jobs() == []
        assert queries.totals(stranger)[Purse.TOKENS] == 7
        assert queries.totals(job.payer.address)[Purse.ESCROW] == 0


@pytest.mark.slow
async def test_a_chain_that_was_begun_anew_is_read_anew(database: Database, chain: Chain) -> None:
    job_done(chain)
    await caught_up(database, chain)
    other = Chain(World(Exact()))  # the same contracts at the same addresses, other blocks
    assert other.network == chain.network
    other.world.funded(3)
    other.mine(40)
    follower = await caught_up(database, other)
    assert follower.progress.taken_back == 1
    with database.read() as connection:
        assert Queries(connection).jobs() == []


@pytest.mark.slow
async def test_a_chain_that_moves_while_a_page_is_read_spoils_that_page_only(database: Database, chain: Chain) -> None:
    wind_back = chain.mark()
    job = a_job(chain)
    chain.mine(5)
    rpc = chain.rpc()
    asked = 0

    def move(method: str, params: Any) -> Any:
        nonlocal asked
        if method != "eth_getLogs":
            return None
        asked += 1
        found = {"result": chain.methods.call(method, params)}
        if asked == 1:
            wind_back()
            chain.world.call("Token", "transfer", job.payer.address, 1, by=chain.world.bank)
            chain.mine(60)
        return found

    rpc.rule = move
    await Follower(database, rpc, chain.network).catch_up()
    await Follower(database, chain.rpc(), chain.network).catch_up()
    assert asked >= 2
    with database.read() as connection:
        assert Queries(connection).jobs() == [], "its events were of blocks that are no more"
        assert Queries(connection).totals(job.payer.address)[Purse.TOKENS] == 1


async def test_events_that_a_new_branch_has_more_are_not_lost(database: Database, chain: Chain) -> None:
    """The node's logs are of the old branch, which had none: only the block at the page's end shows it."""
    stranger = chain.world.account().address
    wind_back = chain.mark()
    chain.mine(5)
    rpc, moved = chain.rpc(), False

    def move(method: str, params: Any) -> Any:
        nonlocal moved
        if method != "eth_getLogs" or moved:
            return None
        moved = True
        found = {"result": chain.methods.call(method, params)}
        wind_back()
        chain.world.call("Token", "transfer", stranger, 3, by=chain.world.bank)
        chain.mine(5)
        return found

    rpc.rule = move
    await Follower(database, rpc, chain.network).catch_up()
    assert moved
    with database.read() as connection:
        assert Queries(connection).totals(stranger)[Purse.TOKENS] == 3


async def test_a_chain_that_never_rests_is_told_of(
    database: Database, chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RETRY_S", 0)
    chain.mine(3)
    rpc = chain.rpc()
    rpc.rule = lambda m, p: (chain.mark(), chain.mine())[0] and None
    logs = [0]

    def change(method: str, params: Any) -> Any:
        if method == "eth_getLogs":
            logs[0] += 1
            return {"result": [
                {"address": "0x" + chain.world.contracts["Token"].hex(), "topics": [], "data": "0x", "logIndex": "0x0",
                 "blockNumber": "0x1", "blockHash": "0x" + "ee" * 32, "transactionHash": "0x" + "00" * 32}
            ]}  # fmt: skip
        return None

    rpc.rule = change
    with pytest.raises(ChainError, match="keep changing"):
        await Follower(database, rpc, chain.network).catch_up()
    assert logs[0] == module.TRIES


@pytest.mark.slow
async def test_two_processes_on_one_index_make_no_row_twice(
    open_database: Callable[[], Database], urls: Any, chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_done(chain)
    chain.mine(2)
    alone = open_database()
    await Follower(alone, chain.rpc(), chain.network).catch_up()
    url = urls()
    monkeypatch.setattr(module, "PAGE_BLOCKS", 5)
    with Database(url) as one, Database(url) as two:
        slow, fast = Follower(one, chain.rpc(), chain.network), Follower(two, chain.rpc(), chain.network)
        cursor = None
        await slow._prepare()
        cursor = await slow._take_back()
        await fast.catch_up()
        assert await slow._read(cursor, cursor.number + 5), "the other was faster: nothing to do, and nothing wrong"
        await slow.catch_up()
        assert everything(one) == everything(alone)


async def test_a_fresh_index_from_the_chain_is_the_same_and_made_by_one_call(
    open_database: Callable[[], Database], chain: Chain
) -> None:
    job_done(chain)
    index, other = open_database(), open_database()
    await caught_up(index, chain)
    before = everything(index)
    await Follower(index, chain.rpc(), chain.network).rebuild()
    await Follower(other, chain.rpc(), chain.network).catch_up()
    assert everything(index) == before == everything(other)


@pytest.mark.slow
async def test_both_databases_give_the_same_answers(chain: Chain, server: str, tmp_path: Any) -> None:
    job = job_done(chain)
    chain.mine(2)
    answers = []
    name = "side_by_side"
    import sqlalchemy

    engine = sqlalchemy.create_engine(
        server.replace("postgresql:", "postgresql+psycopg:"), isolation_level="AUTOCOMMIT"
    )
    with engine.connect() as connection:
        connection.execute(sqlalchemy.text(f"CREATE SCHEMA {name}"))
    engine.dispose()
    for url in (str(tmp_path / "index.sqlite"), f"{server}&options=-csearch_path%3D{name}"):
        with Database(url) as database:
            await Follower(database, chain.rpc(), chain.network).catch_up()
            with database.read() as connection:
                queries = Queries(connection)
                told = [
                    queries.head(), queries.accounts(), queries.jobs(), queries.seats(b""),
                    [list(queries.history(a)) for a in queries.accounts()],
                    [queries.totals(a) for a in queries.accounts()], queries.earned(job.workers[0].address, 3600),
                    queries.sums("JobEscrow", "FeesBurned", "amount"), queries.number_of("Token", "Transfer"),
                ]  # fmt: skip
                answers.append((msgspec.json.encode(told, enc_hook=bytes.hex), everything(database)))
    assert answers[0] == answers[1]


async def test_it_follows_the_chain_and_outlasts_a_chain_that_is_away(
    database: Database, chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    back, arrived = trio.Event(), trio.Event()
    stranger, looks, wanted = chain.world.account().address, 0, 10**9

    def say(progress: Progress) -> None:
        if progress.block >= wanted:
            arrived.set()

    follower = Follower(database, chain.rpc(), chain.network, say=say)
    catch_up = follower.catch_up

    async def sometimes() -> Any:
        nonlocal looks
        looks += 1
        if looks == 2:
            raise ChainError("chain_unavailable", "It is away.", reverted=False)
        done = await catch_up()
        if looks > 2:
            back.set()
        return done

    monkeypatch.setattr(follower, "catch_up", sometimes)
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(follower.follow, 0.001)
            await back.wait()
            chain.world.call("Token", "transfer", stranger, 9, by=chain.world.bank)
            wanted = chain.head
            chain.mine(chain.network.parameters.confirmations)
            await arrived.wait()
            nursery.cancel_scope.cancel()
    with database.read() as connection:
        assert Queries(connection).totals(stranger)[Purse.TOKENS] == 9


async def test_an_index_of_another_network_is_refused_until_it_is_made_anew(database: Database, chain: Chain) -> None:
    await caught_up(database, chain)
    other = msgspec.structs.replace(
        chain.network, contracts=msgspec.structs.replace(chain.network.contracts, deployed_block=2)
    )
    with pytest.raises(CallerError, match="another network"):
        await Follower(database, chain.rpc(), other).catch_up()
    await Follower(database, chain.rpc(), other).rebuild()


async def test_an_index_of_another_version_is_made_anew(
    database: Database, chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_done(chain)
    await caught_up(database, chain)
    before = everything(database)
    with database.write() as connection:
        connection.execute(schema.moves.delete())
    monkeypatch.setattr(schema, "LAYOUT", schema.LAYOUT + 1)
    await caught_up(database, chain)
    after = everything(database)
    assert after["moves"] == before["moves"]


async def test_events_without_a_rule_and_events_that_nobody_knows_do_no_harm(
    database: Database, chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    rules = {key: rule for key, rule in effects.RULES.items() if key != ("JobEscrow", "FeesBurned")}
    monkeypatch.setattr(effects, "RULES", rules)
    job = job_done(chain)
    rpc = chain.rpc()

    def strange(method: str, params: Any) -> Any:
        """One log more than the chain has: of a contract's later version."""
        if method != "eth_getLogs":
            return None
        found = chain.methods.call(method, params)
        if not found:
            return None
        return {"result": [*found, {**found[-1], "topics": ["0x" + "99" * 32], "data": "0x1234", "logIndex": "0x77"}]}

    rpc.rule = strange
    await caught_up(database, chain, rpc)
    with database.read() as connection:
        queries = Queries(connection)
        assert queries.number_of("JobEscrow", "FeesBurned") == 1
        assert queries.sums("JobEscrow", "FeesBurned", "amount") > 0
        assert sum(row[4] == "" for row in everything(database)["events"]) == 1
        for key in (job.payer, *job.workers):
            assert queries.totals(key.address) == on_chain(chain.world, key.address, [job])


async def test_a_node_that_leaves_events_out_is_found_out(database: Database, chain: Chain) -> None:
    job_done(chain)
    topic = "0x" + abi.load("JobEscrow").topics["JobOpened"].hex()
    rpc = chain.rpc()

    def forgetful(method: str, params: Any) -> Any:
        if method != "eth_getLogs":
            return None
        return {"result": [log for log in chain.methods.call(method, params) if log["topics"][0] != topic]}

    rpc.rule = forgetful
    with pytest.raises(ChainError, match="left out"):
        await caught_up(database, chain, rpc)
    with database.read() as connection:
        assert Queries(connection).counts()["events"] == 0, "a page is kept whole or not at all"


INTERFACES = Path(__file__).parents[3] / "contracts/src/interfaces"


def declared() -> dict[tuple[str, str], list[dict[str, str]]]:
    """(contract, event) -> fields with their types: of the contracts' ABI, and of the interfaces of those to come."""
    found: dict[tuple[str, str], list[dict[str, str]]] = {}
    for path in INTERFACES.rglob("I*.sol"):
        for name, fields in re.findall(r"^ +event (\w+)\(([^)]*)\);", path.read_text(), re.MULTILINE):
            words = [field.split() for field in fields.split(",")]
            found[path.stem[1:], name] = [{"name": each[-1], "type": each[0]} for each in words]
    for contract in abi.CONTRACTS:
        interface = abi.load(contract)
        for name, topic in interface.topics.items():
            found[contract, name] = list(interface._events[topic]["inputs"])
    return found


def test_every_rule_names_an_event_and_fields_that_the_contracts_have() -> None:
    known = {"payer", "worker", *effects.CONSTANTS, *(f"{party}?" for party in effects.PARTIES)}
    events = declared()
    for key, rule in effects.RULES.items():
        assert key in events, f"there is no event {key}"
        fields = {each["name"] for each in events[key]}
        for _, whose, terms in rule.moves:
            named = {whose, *(part for term in terms for part in term[1:].split("*"))}
            assert named <= fields | known, (key, named - fields - known)


def test_every_event_that_carries_wei_has_a_rule() -> None:
    """A contract's new event with an amount in it is a line that somebody forgot."""
    plain = {("Token", "Approval")}
    for key, fields in declared().items():
        if key[0] in INDEXED and key not in plain:
            carries = {each["type"] for each in fields} & {"uint96", "uint256"}
            assert not carries or key in effects.RULES, f"{key} is not in effects.RULES"


def moves_of(contract: str, name: str, values: dict[str, Any], **known: Any) -> list[tuple[str, bytes, int]]:
    return [(m.purse.value, m.account, m.amount) for m in effects.RULES[contract, name].apply(values, known)]


def test_the_court_is_credited_where_a_network_has_one() -> None:
    assert moves_of("JobEscrow", "FeesBurned", {"amount": 7}) == []
    assert moves_of("JobEscrow", "FeesBurned", {"amount": 7}, court=b"c") == [("credits", b"c", 7)]
    slashed = {"payer": b"p", "prover": b"q", "toPayer": 4, "toProver": 2, "toCourt": 1, "amount": 10, "burned": 3}
    assert moves_of("JobEscrow", "Slashed", slashed, court=b"c") == [
        ("credits", b"p", 4), ("credits", b"q", 2), ("credits", b"c", 1)
    ]  # fmt: skip


def test_a_newcomers_pay_goes_through_credits_into_stake_and_a_slot() -> None:
    told = [
        ("JobEscrow", "Settled", {"worker": b"w", "amount": 100, "fee": 2}),
        ("JobEscrow", "Staked", {"account": b"w", "amount": 98}),
        ("Registry", "Deposited", {"account": b"w", "amount": 98}),
        ("Registry", "DepositUsed", {"account": b"w", "amount": 50}),
        ("Registry", "SlotsBought", {"account": b"w", "count": 1}),
        ("JobEscrow", "CreditSpent", {"account": b"w", "carrier": b"r", "amount": 0, "fee": 0}),
    ]
    sums: dict[str, int] = {}
    for contract, name, values in told:
        for purse, account, amount in moves_of(contract, name, values, payer=b"p", slotWei=50):
            if account == b"w":
                sums[purse] = sums.get(purse, 0) + amount
    assert sums == {"credits": 0, "stake": 98}


@pytest.mark.parametrize("url", ["mysql://x/y", "sqlite://", "sqlite:///:memory:", "nonsense://", "://"])
def test_an_index_url_of_another_kind_is_refused(url: str) -> None:
    with pytest.raises(CallerError, match="SQLite or PostgreSQL"):
        Database(url)


def test_a_password_in_the_url_is_not_shown() -> None:
    database = Database("postgres://anna:secret@db.example/ledger")
    assert "secret" not in repr(database) + database.shown
    assert "anna" in database.shown
