"""Transactions on their way, kept: one suite for memory and file, and what only a file can do."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest
import trio

from tallymesh.errors import LocalError
from tallymesh_ledger.chain.envelope import Fees, Plain, parse, sign
from tallymesh_ledger.chain.outbox import FileOutbox, MemoryOutbox, Outbox, Sent
from tallymesh_ledger.keys import AccountKey

ACCOUNT, OTHER = b"\x01" * 20, b"\x02" * 20
CHAIN = 2**60  # wider than SQLite's integers would be, were it two bits more


def sent(nonce: int, mark: int, *, account: bytes = ACCOUNT, chain_id: int = CHAIN) -> Sent:
    hash_ = bytes([mark]) * 32
    return Sent(account=account, chain_id=chain_id, nonce=nonce, hash=hash_, raw=b"\x02" + hash_, intent=b"i", at=5.0)


@pytest.fixture(params=["memory", "file"])
def outbox(request: pytest.FixtureRequest, tmp_path: Path):
    made = MemoryOutbox() if request.param == "memory" else FileOutbox(tmp_path / "sent.sqlite")
    yield made
    if isinstance(made, FileOutbox):
        made.close()


async def test_what_was_kept_is_found_in_order_for_its_account_and_chain(outbox: Outbox) -> None:
    mine = [sent(7, 1), sent(7, 2), sent(6, 3)]
    for each in [*mine, sent(7, 4, account=OTHER), sent(7, 5, chain_id=CHAIN + 1)]:
        await outbox.keep(each)
    assert await outbox.load(ACCOUNT, CHAIN) == mine
    assert [each.hash[0] for each in await outbox.load(OTHER, CHAIN)] == [4]
    assert await outbox.load(OTHER, CHAIN + 1) == []


async def test_keeping_twice_is_keeping_once(outbox: Outbox) -> None:
    await outbox.keep(sent(7, 1))
    await outbox.keep(sent(7, 1))
    assert len(await outbox.load(ACCOUNT, CHAIN)) == 1


async def test_dropping_takes_what_is_named_and_nothing_else(outbox: Outbox) -> None:
    for mark in (1, 2, 3):
        await outbox.keep(sent(7, mark))
    await outbox.drop([sent(7, 1).hash, sent(7, 2).hash, b"\x09" * 32])
    assert [each.hash[0] for each in await outbox.load(ACCOUNT, CHAIN)] == [3]
    await outbox.drop([])


async def test_two_processes_share_a_file_and_nobody_else_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "sent.sqlite"
    one, two = FileOutbox(path), FileOutbox(path)
    await one.keep(sent(1, 1))
    await two.keep(sent(2, 2))
    assert len(await one.load(ACCOUNT, CHAIN)) == 2
    for name in os.listdir(tmp_path):
        assert os.stat(tmp_path / name).st_mode & 0o077 == 0, name
    one.close()
    two.close()


@pytest.mark.slow
async def test_kill_nine_after_keeping_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "sent.sqlite"
    program = (
        "import os, sys, trio; from pathlib import Path; from tallymesh_ledger.chain.outbox import FileOutbox, Sent\n"
        "async def main():\n"
        "    kept = Sent(account=b'\\1' * 20, chain_id=2**60, nonce=3, hash=b'h' * 32, raw=b'r', intent=b'i', at=1.0)\n"
        "    await FileOutbox(Path(sys.argv[1])).keep(kept)\n"
        "    os.kill(os.getpid(), 9)\n"
        "trio.run(main)\n"
    )
    with trio.fail_after(240):
        died = await trio.run_process([sys.executable, "-c", program, str(path)], check=False)
    assert died.returncode == -signal.SIGKILL
    outbox = FileOutbox(path)
    assert [each.nonce for each in await outbox.load(ACCOUNT, CHAIN)] == [3]
    outbox.close()


async def test_a_disk_that_cannot_be_written_is_this_machines_fault(tmp_path: Path) -> None:
    outbox = FileOutbox(tmp_path / "missing" / "sent.sqlite")
    with pytest.raises(LocalError) as caught:
        await outbox.keep(sent(1, 1))
    assert caught.value.code == "disk"
    (tmp_path / "broken.sqlite").write_bytes(os.urandom(5_000))
    broken = FileOutbox(tmp_path / "broken.sqlite")
    with pytest.raises(LocalError):
        await broken.load(ACCOUNT, CHAIN)
    broken.close()


@pytest.mark.parametrize("legacy", [True, False])
@pytest.mark.parametrize("to", [b"", b"\x07" * 20])
def test_a_kept_envelope_says_all_that_is_needed_to_replace_it(legacy: bool, to: bytes) -> None:
    fees = Fees(10**10, 10**10 if legacy else 3, legacy=legacy)
    plain = Plain(chain_id=CHAIN, nonce=0, gas=90_000, fees=fees, to=to, data=b"\0abc", value=10**20)
    assert parse(sign(AccountKey.generate(), plain).raw) == plain


@pytest.mark.parametrize("nonsense", [b"", b"\x02", b"\x02\xc0", b"\xc0", b"\x01\x02", b"\xf8" + b"\xff" * 50])
def test_bytes_that_are_no_transaction_are_refused(nonsense: bytes) -> None:
    with pytest.raises(ValueError):
        parse(nonsense)
