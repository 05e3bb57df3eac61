"""`history`, `earnings`, `receipt`, `stake`, `withdraw`, `network` and `index`: typed, against the real contracts."""

from __future__ import annotations

import copy
import csv
import io
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from fakes.contract_chain import Chain, job_done
from fakes.contract_world import Job
from fakes.shell import CliRunner
from tallymesh import exchange, network
from tallymesh.exchange import Opening, ReceiptRequest
from tallymesh.messages import Receipt, Tally
from tallymesh_ledger import merkle
from tallymesh_ledger.keys import AccountKey, checksum
from tallymesh_node.cli.app import app
from tallymesh_node.cli.source import since
from tallymesh_node.payer import records
from tallymesh_node.store import Database, SqlJournal
from tallymesh_node.worker.record import ReceiptLine


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in list(os.environ):
        if name.startswith("TALLYMESH_"):
            monkeypatch.delenv(name)
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("TALLYMESH_HOME", str(folder))
    return folder


@pytest.fixture
def chain(home: Path, monkeypatch: pytest.MonkeyPatch) -> Chain:
    made = Chain()
    network.save(made.network, home / "network.json")
    monkeypatch.setattr("tallymesh_ledger.chain.Rpc", lambda urls, **_: made.rpc())
    return made


def call(*arguments: str, code: int = 0, text: str | None = None) -> str:
    done = CliRunner().invoke(app, list(arguments), input=text)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == code, done.output
    return done.stdout if code == 0 else done.stderr or done.stdout


def call_json(*arguments: str) -> Any:
    return json.loads(call(*arguments, "--json"))


class Told:
    """A seat with real leaves, tallies and chain values, paid in two parts: after tally 1 and after tally 3."""

    def __init__(self, chain: Chain) -> None:
        world = chain.world
        self.job = job = Job(world, workers=1, positions=9)
        self.seat, self.worker = job.seats[0], job.workers[0]
        world.call("JobEscrow", "open", job.order, [job.seating(0)], by=job.payer)
        self.openings = [Opening(*(bytes([16 * n + p]) * 32 for n in range(1, 6))) for p in range(8)]
        self.leaves = [merkle.leaf(self.seat, p, opening) for p, opening in enumerate(self.openings)]
        self.tallies: list[Tally] = []
        value = bytes(32)
        for number, (start, count) in enumerate([(0, 1), (1, 4), (5, 3)], 1):
            root = merkle.root(self.leaves[start : start + count])
            self.tallies.append(
                Tally(
                    seat=self.seat, number=number, previous=value, start=start, count=count, root=root, block_number=1,
                    block_hash=bytes(32),
                )
            )  # fmt: skip
            value = merkle.chain_value(value, root, start, count)
        for number in (1, 3):
            tally = self.tallies[number - 1]
            chained = merkle.chain_value(tally.previous, tally.root, tally.start, tally.count)
            accept = msgspec.structs.replace(job.accept(0, tally.start + tally.count, number), chain=chained)
            item = (job.leases[0], accept, job.sign(job.signer, accept))
            world.call("JobEscrow", "settle", [item], by=self.worker)
        chain.mine(chain.network.parameters.confirmations)

    def on(self, chain: Chain) -> Told:
        """The same on a chain where nothing happened yet."""
        made = copy.copy(self)
        made.job = self.job.copy()
        made.openings, made.leaves = list(self.openings), list(self.leaves)
        chain.go_on(made.job.world)
        return made

    def by_worker(self, message: Any) -> bytes:
        return self.worker.sign(self.job.world.domains, message).body

    def worker_lines(self) -> list[tuple[str, bytes]]:
        lines = []
        for position, (leaf, opening) in enumerate(zip(self.leaves, self.openings, strict=True)):
            signed = self.by_worker(Receipt(seat=self.seat, position=position, leaf=leaf))
            request = exchange.encode(ReceiptRequest(receipt=signed, opening=opening))
            lines.append(("receipt", exchange.encode(ReceiptLine(request=request, at=1))))
        return [*lines, *(("tally", self.by_worker(tally)) for tally in self.tallies)]

    def payer_lines(self) -> list[tuple[str, bytes]]:
        lines = []
        for position, (leaf, opening) in enumerate(zip(self.leaves, self.openings, strict=True)):
            signed = self.by_worker(Receipt(seat=self.seat, position=position, leaf=leaf))
            lines.append(records.line(records.Received(signed, opening, b"{}", {}, False)))
        return [*lines, *(records.line(records.Tallied(self.by_worker(t), False)) for t in self.tallies)]


def write_journal(folder: Path, scope: str, lines: list[tuple[str, bytes]]) -> None:
    async def write() -> None:
        with Database(folder) as database:
            await SqlJournal(database).append(scope, *lines)

    trio.run(write)


@pytest.fixture(scope="module")
def told_once() -> Told:
    return Told(Chain())


@pytest.fixture
def told(chain: Chain, told_once: Told) -> Told:
    return told_once.on(chain)


@pytest.fixture(params=["worker", "payer", "worker of a local network"])
def journalled(request: pytest.FixtureRequest, told: Told, home: Path) -> Told:
    """The seat's receipts in a journal on this machine, of either side."""
    folder = home / "up" / "worker1" if "local" in request.param else home
    if request.param == "payer":
        write_journal(folder, f"payer/{told.job.id.hex()}", told.payer_lines())
    else:
        write_journal(folder, f"worker/{told.seat.hex()}", told.worker_lines())
    return told


# -- every command


@pytest.mark.parametrize("command", [["history"], ["earnings"], ["withdraw"], ["stake", "add"]], ids=" ".join)
def test_without_a_network_file_the_remedy_is_told(command: list[str]) -> None:
    assert "no network file" in call(*command, code=1)


def test_without_a_wallet_nothing_is_signed(chain: Chain) -> None:
    for command in (["withdraw"], ["stake", "add"], ["stake", "release"]):
        assert "no wallet" in call(*command, code=1)


# -- history and earnings


@pytest.mark.slow
def test_the_history_of_each_party_of_a_job_adds_up_to_its_balance(chain: Chain) -> None:
    job = job_done(chain)
    chain.mine(2)
    for key in (job.payer, *job.workers, chain.world.bank):
        told = call_json("history", checksum(key.address))
        assert told["adds_up"] is True, told
        assert {purse: told["totals_wei"][purse] for purse in told["chain_wei"]} == told["chain_wei"]
        sums = dict.fromkeys(told["totals_wei"], 0)
        for entry in told["entries"]:
            sums[entry["purse"]] += int(entry["amount_wei"])
            assert sums[entry["purse"]] == int(entry["balance_wei"])
        assert {purse: str(wei) for purse, wei in sums.items()} == told["totals_wei"]
        (row,) = call_json("balance", checksum(key.address))
        assert row["tokens_wei"] == told["totals_wei"]["tokens"]
        assert row["credits_wei"] == told["totals_wei"]["credits"]
    shown = call("history", checksum(job.workers[0].address))
    assert "yes, each purse is what the contracts say" in shown
    assert "pay for units" in shown
    assert "elsewhere" in shown, "no journal is here"


def test_a_history_that_does_not_add_up_says_so_and_what_to_do(chain: Chain, home: Path) -> None:
    job = job_done(chain)
    chain.mine(2)
    account = checksum(job.payer.address)
    call("history", account)
    (path,) = (home / "index").glob("*.sqlite")
    import sqlite3

    with sqlite3.connect(path) as connection:
        connection.execute("DELETE FROM moves WHERE purse = 'credits' AND amount LIKE '-%'")
    connection.close()
    shown = call("history", account)
    assert "adds up  NO: credits" in shown
    assert "tallymesh index rebuild" in shown
    assert call_json("history", account)["adds_up"] is False
    call("index", "rebuild")
    assert call_json("history", account)["adds_up"] is True


def test_csv_has_one_move_a_line_with_wei(chain: Chain) -> None:
    job = job_done(chain)
    chain.mine(2)
    account = checksum(job.workers[0].address)
    rows = list(csv.DictReader(io.StringIO(call("history", account, "--csv"))))
    entries = call_json("history", account)["entries"]
    assert [row["amount_wei"] for row in rows] == [entry["amount_wei"] for entry in entries]
    paid = [row for row in rows if row["event"] == "JobEscrow.Settled"]
    assert [(row["first_unit"], row["end_unit"], row["receipts_here"]) for row in paid] == [
        ("0", "1", "0"),
        ("1", "6", "0"),
    ]
    assert paid[0]["time"].endswith("Z")
    assert "two forms" in call("history", account, "--csv", "--json", code=1)


def test_since_leaves_older_moves_out_and_the_totals_whole(chain: Chain) -> None:
    job = job_done(chain)
    chain.mine(2)
    account = checksum(job.workers[0].address)
    whole, none = call_json("history", account), call_json("history", account, "--since", "2100-01-01")
    assert none["entries"] == []
    assert none["totals_wei"] == whole["totals_wei"]
    assert none["adds_up"] is True
    assert "No move of money" in call("history", account, "--since", "2100-01-01")
    assert "no time" in call("history", account, "--since", "yesterday", code=1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("", 0), ("7d", 1_000_000 - 604_800), ("90min", 994_600), ("2w", 0), ("1970-01-02", 86_400), ("1h", 996_400)],
)
def test_since_takes_spans_and_dates(text: str, expected: int) -> None:
    assert since(text, 1_000_000.0) == expected


def test_offline_answers_from_the_index_as_it_is(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    job = job_done(chain)
    chain.mine(2)
    account = checksum(job.payer.address)
    refused = call("history", account, "--offline", code=1)
    assert "Nothing was read into the index" in refused
    assert "tallymesh index sync" in refused
    before = call_json("history", account)

    def gone(*_: Any, **__: Any) -> Any:
        raise AssertionError("the chain was asked")

    monkeypatch.setattr("tallymesh_ledger.chain.Rpc", gone)
    told = call_json("history", account, "--offline")
    assert told["entries"] == before["entries"]
    assert told["adds_up"] is None
    assert "not compared" in call("history", account, "--offline")
    assert call_json("earnings", account, "--offline")["periods"] == []
    assert call_json("network", "--offline")["on_chain"] is None


def test_payments_are_joined_with_their_receipts_where_a_node_has_them(journalled: Told) -> None:
    account = checksum(journalled.worker.address)
    paid = [entry for entry in call_json("history", account)["entries"] if entry["event"] == "JobEscrow.Settled"]
    assert [(entry["first_unit"], entry["end_unit"], entry["receipts"]) for entry in paid] == [
        (0, 1, {"here": 1, "proven": True}), (1, 8, {"here": 7, "proven": True}),
    ]  # fmt: skip
    assert call("history", account).count("  proven") == 2


def test_a_payer_sees_the_units_that_it_paid_for(journalled: Told) -> None:
    account = checksum(journalled.job.payer.address)
    paid = [entry for entry in call_json("history", account)["entries"] if entry["event"] == "JobEscrow.Settled"]
    assert [(entry["purse"], entry["first_unit"], entry["end_unit"], entry["receipts"]) for entry in paid] == [
        ("escrow", 0, 1, {"here": 1, "proven": True}), ("escrow", 1, 8, {"here": 7, "proven": True}),
    ]  # fmt: skip


def test_earnings_are_pay_after_fees_per_period(told: Told) -> None:
    account, price = checksum(told.worker.address), told.job.price
    earned = call_json("earnings", account, "--per", "week")
    assert earned["earned_wei"] == str(8 * price * 98 // 100)
    (period,) = earned["periods"]
    assert (period["units"], period["seats"], period["fee_wei"]) == (8, 1, str(8 * price * 2 // 100))
    assert "together 0.0784 MESH" in call("earnings", account)
    assert "Nothing earned" in call("earnings", checksum(told.job.payer.address))


# -- receipts


@pytest.mark.slow
def test_a_receipt_is_proven_from_its_leaf_to_what_was_settled(journalled: Told) -> None:
    short = journalled.seat.hex()[:10]
    for position in range(8):
        told = call_json("receipt", f"{short}:{position}")
        assert (told["proven"], told["paid"]) == (True, True)
        assert told["leaf"] == "0x" + journalled.leaves[position].hex()
        assert told["settled"]["tally"] == (1 if position == 0 else 3)
        assert len(told["proof"]["links"]) == {0: 1}.get(position, 2 if position < 5 else 1)
    shown = call("receipt", f"0x{journalled.seat.hex()}/4")
    assert "holds: 2 hashes up to the root of units 1 to 4, 1 more tally up to unit 7" in shown
    assert journalled.openings[4].unit_id.hex() in shown
    assert call_json("receipt", journalled.leaves[4].hex())["position"] == 4
    assert call_json("receipt", "0x" + journalled.openings[2].unit_id.hex()[:9])["position"] == 2


def test_a_unit_that_was_not_paid_is_told_of(journalled: Told) -> None:
    told = call_json("receipt", f"{journalled.seat.hex()}:8")
    assert (told["paid"], told["proof"], told["problem"]["code"]) == (False, None, "no_receipt")
    assert "not yet" in call("receipt", f"{journalled.seat.hex()}:8")
    assert "positions 0 to 8" in call("receipt", f"{journalled.seat.hex()}:9", code=1)


def test_on_another_machine_only_what_the_chain_has_is_shown_and_it_says_so(told: Told) -> None:
    shown = call("receipt", f"{told.seat.hex()[:12]}:3")
    assert "No node on this machine has this seat's receipts" in shown
    assert "units 1 to 7" in shown
    answer = call_json("receipt", f"{told.seat.hex()}:3")
    assert (answer["paid"], answer["proven"], answer["problem"]["code"]) == (True, None, "elsewhere")
    assert "SEAT:POSITION" in call("receipt", told.leaves[3].hex(), code=1)


@pytest.mark.slow
def test_a_proof_travels_to_a_machine_that_has_the_chain_alone(told: Told, home: Path, tmp_path: Path) -> None:
    write_journal(home, f"worker/{told.seat.hex()}", told.worker_lines())
    proof = tmp_path / "proof.json"
    proof.write_text(call("receipt", f"{told.seat.hex()}:3", "--json"))
    (home / "state.sqlite").unlink()
    assert call_json("receipt", "--check", str(proof))["proven"] is True
    assert "holds" in call("receipt", "--check", "-", text=proof.read_text())
    whole = json.loads(proof.read_text())
    inner = whole["proof"]
    lies: list[Callable[[Any], Any]] = [
        lambda p: p.update(position=4),
        lambda p: p["opening"].update(end="0x" + "ab" * 32),
        lambda p: p["siblings"].pop(),
        lambda p: p["siblings"].reverse(),
        lambda p: p.update(before="0x" + "00" * 31 + "01"),
        lambda p: p["links"].pop(),
        lambda p: p["links"][0].update(root="0x" + "cd" * 32),
        lambda p: p["links"][1].update(count=4),
        lambda p: p.update(links=[]),
    ]
    for lie in lies:
        changed = json.loads(json.dumps(inner))
        lie(changed)
        proof.write_text(json.dumps(changed))
        assert "Do not believe it" in call("receipt", "--check", str(proof), code=1)
    proof.write_text(json.dumps({**inner, "seat": "0x" + "11" * 32}))
    assert "never had a seat" in call("receipt", "--check", str(proof), code=1)
    for text in ("{}", "[]", "nonsense", json.dumps({**inner, "before": "0x12"}), json.dumps({**whole, "proof": None})):
        proof.write_text(text)
        assert "error" in json.loads(CliRunner().invoke(app, ["receipt", "--check", str(proof), "--json"]).stdout)


def test_books_that_contradict_the_chain_prove_nothing(told: Told, home: Path) -> None:
    other = msgspec.structs.replace(told.openings[6], end=b"\xee" * 32)
    told.openings[6], told.leaves[6] = other, merkle.leaf(told.seat, 6, other)
    write_journal(home, f"worker/{told.seat.hex()}", told.worker_lines())
    assert call_json("receipt", f"{told.seat.hex()}:6")["problem"]["code"] == "contradiction"
    paid = call_json("history", checksum(told.worker.address))["entries"]
    assert [e["receipts"]["proven"] for e in paid if e["event"] == "JobEscrow.Settled"] == [True, False]


def test_a_wrong_id_is_refused(told: Told) -> None:
    for id_ in ("x", "12345", "zz" * 20, f"{'f' * 12}:1"):
        assert "error" in call("receipt", id_, code=1)
    assert "Name one receipt" in call("receipt", code=1)
    assert "Name one receipt" in call("receipt", "aabbccdd:1", "--check", "x", code=1)


# -- stake and withdrawals


@pytest.fixture
def wallet(chain: Chain, home: Path, monkeypatch: pytest.MonkeyPatch) -> AccountKey:
    """The wallet's key without half a second of key derivation: an account with tokens and gas."""
    from tallymesh_ledger import keystore
    from tallymesh_node.cli import account

    key = chain.world.funded(3 * chain.world.parameters.slot_wei)
    monkeypatch.setattr(keystore, "address_in", lambda path: key.address)
    monkeypatch.setattr(keystore, "unlock", lambda path, password: key)
    monkeypatch.setattr(account, "asked_password", lambda named: "")
    return key


@pytest.mark.slow
def test_stake_is_added_released_and_withdrawn(chain: Chain, wallet: AccountKey) -> None:
    slot, account = chain.world.parameters.slot_wei, checksum(wallet.address)
    bought = call_json("stake", "add", "2")
    assert bought["paid_wei"] == str(2 * slot)
    assert re.fullmatch("0x[0-9a-f]{64}", bought["transaction"])
    assert "bought       1 slot for 1000 MESH" in call("stake", "add")
    assert "the account has 0 MESH" in call("stake", "add", code=1)
    (row,) = call_json("balance", account)
    assert (row["slots"], row["tokens_wei"]) == (3, "0")
    released = call_json("stake", "release", "2")
    assert released["slots"] == [1, 2], "the newest"
    assert released["unbonding_wei"] == str(2 * slot)
    assert "has 1 live slot, not 2" in call("stake", "release", "2", code=1)
    assert "still unbonding" in call("withdraw", code=1)
    chain.world.wait(chain.world.parameters.unbonding_s + 1)
    chain.mine()
    drawn = call_json("withdraw")
    assert drawn["stake_wei"] == str(2 * slot)
    assert all(re.fullmatch("0x[0-9a-f]{64}", each) for each in drawn["transactions"])
    assert "has no credits" in call("withdraw", code=1)
    chain.mine(2)
    told = call_json("history", account)
    assert told["adds_up"] is True
    assert told["totals_wei"]["stake"] == str(slot)


@pytest.fixture
def worker_wallet(told: Told, monkeypatch: pytest.MonkeyPatch) -> AccountKey:
    from tallymesh_ledger import keystore
    from tallymesh_node.cli import account

    monkeypatch.setattr(keystore, "address_in", lambda path: told.worker.address)
    monkeypatch.setattr(keystore, "unlock", lambda path, password: told.worker)
    monkeypatch.setattr(account, "asked_password", lambda named: "")
    return told.worker


def test_credits_are_withdrawn(chain: Chain, told: Told, worker_wallet: AccountKey) -> None:
    assert call_json("withdraw")["credits_wei"] == str(8 * told.job.price * 98 // 100)
    (row,) = call_json("balance", checksum(told.worker.address))
    assert row["credits_wei"] == "0"


@pytest.mark.slow
def test_rewards_of_past_periods_are_shown_and_collected_once(
    chain: Chain, told: Told, worker_wallet: AccountKey
) -> None:
    world, account = chain.world, checksum(worker_wallet.address)
    world.call("Token", "transfer", world.contracts["Rewards"], 10**18, by=world.bank)
    assert "Nothing to collect" in call("rewards", "show", account), "the period is not over"
    assert "no reward to collect" in call("rewards", "collect", code=1)
    world.wait(world.parameters.period_s)
    chain.mine()
    burned = 8 * told.job.price * 2 // 100 // 2
    shown = call_json("rewards", "show", account)
    assert shown["rewards_wei"] == str(burned * 9 // 10)
    (row,) = call_json("balance", account)
    assert row["rewards_wei"] == shown["rewards_wei"]
    assert "(tallymesh rewards collect)" in call("balance", account)
    collected = call_json("rewards", "collect")
    assert collected["collected_wei"] == shown["rewards_wei"]
    assert [len(each) for each in collected["transactions"]] == [66]
    assert "Nothing to collect" in call("rewards", "show", account)
    assert "no reward to collect" in call("rewards", "collect", code=1)
    chain.mine(2)
    history = call_json("history", account)
    assert history["adds_up"] is True
    assert history["totals_wei"]["rewards"] == shown["rewards_wei"]
    assert int(call_json("earnings", account)["earned_wei"]) == 8 * told.job.price * 98 // 100 + burned * 9 // 10


def test_a_network_without_rewards_says_so(chain: Chain, home: Path) -> None:
    contracts = msgspec.structs.replace(chain.network.contracts, rewards="")
    network.save(msgspec.structs.replace(chain.network, contracts=contracts), home / "network.json")
    (row,) = call_json("balance", checksum(chain.world.bank.address))
    assert row["rewards_wei"] is None
    assert "has no rewards" in call("rewards", "show", checksum(chain.world.bank.address), code=1)


# -- network and index


@pytest.mark.slow
def test_network_tells_chain_contracts_parameters_stakes_and_jobs(chain: Chain, home: Path) -> None:
    job = job_done(chain)
    Told(chain)
    told = call_json("network")
    assert told["jobs"]["all"] == 2
    assert (told["jobs"]["open"], told["seats"]) == (1, {"all": 3, "open": 1})
    assert told["slots"] == {"bought": 3, "released": 1}
    assert told["on_chain"]["staked_wei"] == str(2 * chain.world.parameters.slot_wei)
    assert told["paid"]["audits_wei"] == str(job.price * 11 // 10)
    assert told["differences"] == []
    assert told["contracts"]["token"] == chain.network.contracts.token
    assert "2 live, 1 released" in call("network")
    parameters = msgspec.structs.replace(chain.network.parameters, fee_bp=5)
    network.save(msgspec.structs.replace(chain.network, parameters=parameters), home / "network.json")
    assert "DIFFERS      fee_bp is 200 on chain and 5 in the network file" in call("network")


@pytest.mark.slow
def test_the_index_goes_where_it_is_told(
    chain: Chain, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain.mine(3)
    there = tmp_path / "elsewhere" / "events.sqlite"
    assert call_json("index", "sync", "--index", str(there))["index"] == str(there)
    assert there.exists()
    assert not (home / "index").exists()
    monkeypatch.setenv("TALLYMESH_INDEX", f"sqlite:///{there}")
    assert call_json("index", "sync")["events"] == 0, "nothing new since"
    assert call_json("index", "rebuild")["events"] > 0
    assert "SQLite or PostgreSQL" in call("index", "sync", "--index", "mysql://x/y", code=1)
    assert "cannot be used" in call("index", "sync", "--index", "postgresql://nobody@127.0.0.1:1/none", code=1)
