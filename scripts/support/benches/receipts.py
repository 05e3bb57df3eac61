"""Bar 16: receipts signed and verified per second on one core.

Signed means what a worker does: salt, leaf, EIP-712 digest, signature. Verified means what a payer does: decode,
recover the signer, leaf of the opening again. Counted in CPU seconds of this one thread: neighbours do not show.
Beside it the same receipts made durable by both sides in the node's real journal (SQLite, fsync), where commits are
shared by whatever waits at the same time.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import trio
from bench import Result

from tallymesh.exchange import Opening
from tallymesh.messages import Receipt
from tallymesh_ledger import keys, merkle
from tallymesh_ledger.eip712 import Domain, Domains
from tallymesh_ledger.keys import AccountKey
from tallymesh_node.store import Database, SqlJournal

DOMAINS = Domains(Domain("Tallymesh Registry", 1, b"\x01" * 20), Domain("Tallymesh JobEscrow", 1, b"\x02" * 20))
SEAT = b"\x03" * 32
SIDE_BY_SIDE = (1, 16, 128)  # receipts under way at once


def run(folder: Path, *, quick: bool) -> Result:
    count = 2_000 if quick else 20_000
    key = AccountKey(b"\x04" * 32)
    began = time.thread_time()
    signed = [_sign(key, position) for position in range(count)]
    signing = time.thread_time() - began
    began = time.thread_time()
    for position, (data, opening) in enumerate(signed):
        _verify(key, position, data, opening)
    verifying = time.thread_time() - began
    durable = {}
    for width in SIDE_BY_SIDE:
        per_s, cpu, commits = trio.run(_durable, folder / f"width{width}", key, min(count, 100 * width), width)
        durable |= {f"durable_{width}_per_s": per_s, f"durable_{width}_per_cpu_s": cpu}
        durable[f"durable_{width}_receipts_a_commit"] = commits
    return Result(
        count / (signing + verifying),
        "receipts/s",
        2_000.0,
        lower=False,
        details={
            "signed_per_s": count / signing,
            "verified_per_s": count / verifying,
            "fsync_ms": _fsync_ms(folder),
            **durable,
            "receipts": count,
        },
    )


def _sign(key: AccountKey, position: int) -> tuple[bytes, Opening]:
    opening = Opening(
        unit_id=position.to_bytes(32, "big"),
        start=bytes(32),
        end=(position + 1).to_bytes(32, "big"),
        salt=merkle.salt(key.secret, SEAT, position),
        aux=bytes(32),
    )
    receipt = Receipt(seat=SEAT, position=position, leaf=merkle.leaf(SEAT, position, opening))
    return key.sign(DOMAINS, receipt).body, opening


def _verify(key: AccountKey, position: int, data: bytes, opening: Opening) -> None:
    receipt: Receipt = keys.open_signed(DOMAINS, data, Receipt, key.address).message
    assert receipt.leaf == merkle.leaf(SEAT, position, opening)


async def _durable(folder: Path, key: AccountKey, count: int, width: int) -> tuple[float, float, float]:
    """(receipts a second, a CPU second, a commit): signed, on one disk, verified, on the other's disk."""
    positions = iter(range(count))
    with Database(folder / "worker") as worker, Database(folder / "payer") as payer:
        ours, theirs = SqlJournal(worker), SqlJournal(payer)

        async def one_after_the_other() -> None:
            for position in positions:
                data, opening = _sign(key, position)
                await ours.append("seat", ("receipt", data))
                _verify(key, position, data, opening)
                await theirs.append("job", ("received", data))

        began, cpu = time.perf_counter(), time.process_time()
        async with trio.open_nursery() as nursery:
            for _ in range(width):
                nursery.start_soon(one_after_the_other)
        wall, cpu = time.perf_counter() - began, time.process_time() - cpu
        return count / wall, count / cpu, count / payer.commits


def _fsync_ms(folder: Path, times: int = 50) -> float:
    """What the disk takes for 4 KiB: without it the durable figures of two machines cannot be compared."""
    with (folder / "fsync").open("wb") as file:
        began = time.perf_counter()
        for _ in range(times):
            file.write(bytes(4096))
            file.flush()
            os.fsync(file.fileno())
    return 1000 * (time.perf_counter() - began) / times
