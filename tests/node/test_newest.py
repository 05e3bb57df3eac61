"""Which reads a node at rest is spared, and which never: a header's "no" counts while nothing was missed."""

from __future__ import annotations

import trio
from eth_bloom import BloomFilter
from trio.testing import MockClock

from fakes.contract_chain import Chain, job_done
from tallymesh_ledger.chain.rpc import Block
from tallymesh_node.newest import FRESH_S, GAP_MAX, KEPT, SKIP_S, SKIP_TRUE_S, SOON, Newest

CLAIMS, COURT = b"\x11" * 20, b"\x22" * 20


def block(number: int, *logged: bytes, fork: int = 0, parent_fork: int = 0, bloom: bytes | None = None) -> Block:
    """As a chain says it; `fork` makes another block of the same number."""
    filled = int(BloomFilter.from_iterable(logged)).to_bytes(256, "big")
    return Block(
        number, bytes([fork]) * 28 + number.to_bytes(4, "big"),
        bytes([parent_fork]) * 28 + (number - 1).to_bytes(4, "big"), 1_000 + number,
        bloom=filled if bloom is None else bloom,
    )  # fmt: skip


async def after(newest: Newest, *blocks: Block, pause_s: float = 1.0) -> float:
    """Notes them a second after each other; the time of now."""
    for each in blocks:
        await trio.sleep(pause_s)
        newest.note(each)
    return trio.current_time()


async def test_a_contract_that_logged_nothing_needs_no_look(autojump_clock: MockClock) -> None:
    newest = Newest()
    now = await after(newest, block(7), block(8, COURT), block(9))
    assert newest.number == 9
    assert newest.silent(CLAIMS, 6, now)
    assert newest.silent(CLAIMS, 9, now)
    assert not newest.silent(COURT, 6, now), "it said something"
    assert not newest.silent(COURT, 9, now), "lately: a reorganisation may bring it again, a node may index late"


async def test_an_event_counts_until_it_is_old(autojump_clock: MockClock) -> None:
    newest = Newest()
    now = await after(newest, block(7, CLAIMS), *(block(8 + i) for i in range(KEPT - 1)))
    assert not newest.silent(CLAIMS, 20, now)
    now = await after(newest, block(7 + KEPT))
    assert newest.silent(CLAIMS, 20, now)
    assert not newest.silent(CLAIMS, 6, now), "a reader that is so far behind reads for itself"


async def test_who_reads_no_events_waits_only_for_nodes_that_are_a_little_behind(autojump_clock: MockClock) -> None:
    newest = Newest()
    now = await after(newest, block(7, CLAIMS), *(block(8 + i) for i in range(30)))
    assert not newest.silent(CLAIMS, 30, now)
    assert newest.silent(CLAIMS, 7 + SOON, now, lately=SOON)
    assert not newest.silent(CLAIMS, 6 + SOON, now, lately=SOON), "the answer may be one of before the log"
    assert not newest.silent(CLAIMS, 6, now, lately=0)
    assert newest.silent(CLAIMS, 7, now, lately=0)


async def test_a_gap_a_fork_and_a_node_that_does_not_say_mean_a_look(autojump_clock: MockClock) -> None:
    newest = Newest()
    now = await after(newest, block(7), block(9))
    assert not newest.silent(CLAIMS, 7, now), "nobody saw block 8"
    assert newest.silent(CLAIMS, 8, now)
    now = await after(newest, block(10, fork=1, parent_fork=1))
    assert not newest.silent(CLAIMS, 8, now), "block 9 is another one by now"
    now = await after(newest, block(11, parent_fork=1, bloom=b""))
    assert not newest.silent(CLAIMS, 10, now)


async def test_nobody_relies_on_headers_for_long_or_on_old_ones(autojump_clock: MockClock) -> None:
    newest = Newest()
    assert newest.number is None
    assert not newest.silent(CLAIMS, 0, trio.current_time())
    now = await after(newest, *(block(7 + i) for i in range(12)))
    assert newest.silent(CLAIMS, 6, now - SKIP_S)
    assert not newest.silent(CLAIMS, 6, now - SKIP_S - 0.1), "a chain may leave its filters empty"
    await trio.sleep(FRESH_S + 0.1)
    assert newest.number is None, "the loop has stopped, or the chain is away"
    assert not newest.silent(CLAIMS, 6, trio.current_time())


async def test_a_filter_that_told_the_truth_is_relied_on_longer_and_one_that_lied_not_at_all(
    autojump_clock: MockClock,
) -> None:
    newest = Newest()
    now = await after(newest, *(block(7 + i) for i in range(KEPT)))
    assert newest.unjudged
    newest.judge(block(3, bloom=b""), COURT)
    assert newest.unjudged, "that one said nothing"
    newest.judge(block(3, CLAIMS, COURT), COURT)
    assert newest.silent(CLAIMS, 6, now - SKIP_TRUE_S)
    assert not newest.silent(CLAIMS, 6, now - SKIP_TRUE_S - 0.1)
    newest.judge(block(4), COURT)
    assert not newest.silent(CLAIMS, 6, now)
    newest.judge(block(3, COURT), COURT)
    assert not newest.silent(CLAIMS, 6, now), "once is enough"


async def test_what_came_between_two_looks_is_named_where_it_is_little(autojump_clock: MockClock) -> None:
    newest = Newest()
    assert not newest.missing(block(9))
    now = await after(newest, block(7))
    assert list(newest.missing(block(8))) == []
    assert list(newest.missing(block(10))) == [8, 9]
    assert len(newest.missing(block(8 + GAP_MAX))) == GAP_MAX
    assert not newest.missing(block(9 + GAP_MAX))
    assert not newest.missing(block(5)), "a reorganisation"
    now = await after(newest, block(8), block(9), block(10))
    assert newest.silent(CLAIMS, 7, now)


async def test_a_block_is_the_newest_chains_or_unknown(autojump_clock: MockClock) -> None:
    newest = Newest()
    await after(newest, block(7), block(8), block(9))
    assert newest.block(8) == block(8)
    assert newest.block(6) is newest.block(10) is None
    assert newest.follows(8, block(8).hash)
    assert newest.follows(6, block(7).parent)
    assert not newest.follows(8, block(8, fork=1).hash)
    assert not newest.follows(6, block(7, parent_fork=1).parent)
    assert not newest.follows(5, block(5).hash), "nobody knows any more"
    await trio.sleep(FRESH_S + 0.1)
    assert newest.block(8) is None
    assert not newest.follows(8, block(8).hash)


async def test_an_event_that_came_after_a_look_is_noticed(autojump_clock: MockClock) -> None:
    newest = Newest()
    now = await after(newest, block(7), block(8))
    assert newest.silent(CLAIMS, 7, now)
    now = await after(newest, block(9, CLAIMS))
    assert not newest.silent(CLAIMS, 7, now)
    later = await after(newest, block(9, fork=1), block(10, parent_fork=1))
    assert newest.silent(CLAIMS, 9, later), "it was taken back with its block"
    assert not newest.silent(CLAIMS, 9, now), "but whoever read before knows another block 9"


async def test_no_log_of_a_real_chain_is_denied_by_its_blocks_header() -> None:
    chain = Chain()
    job_done(chain)
    rpc = chain.rpc()
    logs = await rpc.call("eth_getLogs", {"fromBlock": "0x1", "toBlock": "latest"})
    assert len(logs) > 20
    logged = {(int(log["blockNumber"], 16), bytes.fromhex(log["address"][2:])) for log in logs}
    denied = 0
    for number in range(1, chain.head + 1):
        newest = Newest()
        newest.note(await rpc.block(number))
        for name in ("Token", "Registry", "JobEscrow"):
            address = chain.world.contracts[name]
            silent = newest.silent(address, number - 1, trio.current_time())
            assert not (silent and (number, address) in logged)
            denied += silent
    assert denied > 20, "and most of what did not happen is"
