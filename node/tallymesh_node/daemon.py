"""The node: opens what the roles need, wires them, and runs until it is told to stop.

Everything long-lived is a task of one nursery; the order in which things open is the order of this file, and they close
in reverse. What the parts do is theirs; here stands only who knows whom.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import trio

from tallymesh import network as network_file
from tallymesh.exchange import Source
from tallymesh.ids import BlobId
from tallymesh_ledger.chain import Rpc
from tallymesh_ledger.chain.outbox import FileOutbox
from tallymesh_ledger.eip712 import Domains
from tallymesh_ledger.keys import checksum
from tallymesh_node import beats
from tallymesh_node.auditor import AuditorService
from tallymesh_node.blobs import BlobExchange, BlobStore, open_blobs
from tallymesh_node.blobs.room import Room
from tallymesh_node.blobs.sweeping import Sweeper
from tallymesh_node.capacity import Canaries, Canary, from_machine
from tallymesh_node.carriers.asking import Asking
from tallymesh_node.carriers.chain import RegistryChain
from tallymesh_node.carriers.serving import Carrier
from tallymesh_node.claims import ClaimsService
from tallymesh_node.claims.chain import claims_of
from tallymesh_node.claims.due import Policy
from tallymesh_node.config import Config, changed
from tallymesh_node.cores import Cores
from tallymesh_node.enrolment import Enrolment
from tallymesh_node.escrow import EscrowChain
from tallymesh_node.gpus import cards, obstacle
from tallymesh_node.holders import holders_of
from tallymesh_node.http import ApiServer
from tallymesh_node.limits import Limits, Stance
from tallymesh_node.limits.affinity import confine, some_cores
from tallymesh_node.limits.steward import Changes, Steward
from tallymesh_node.machine import Machine, measure
from tallymesh_node.market.book import REFRESH_IDLE_S, REFRESH_S, OfferBook
from tallymesh_node.market.envelope import Binding, Opener, bind
from tallymesh_node.market.publisher import Publisher
from tallymesh_node.money_watch import MoneyWatch
from tallymesh_node.network import (
    Libp2pNetwork,
    Nearby,
    PeerKey,
    Reachability,
    check_reachability,
    load_or_create,
    open_nearby,
    open_network,
)
from tallymesh_node.payer import PayerService
from tallymesh_node.proving import Proving
from tallymesh_node.purse import Purse
from tallymesh_node.quarrels import QuarrelsService
from tallymesh_node.quarrels.chain import court_of
from tallymesh_node.quarrels.grounds import Grounds, grounds_of
from tallymesh_node.sandbox import SandboxExecutor
from tallymesh_node.standing import Circle, partners
from tallymesh_node.status import NodeStatus
from tallymesh_node.store import Database, FolderLock, Life, SqlJournal
from tallymesh_node.store.life import BEAT_S
from tallymesh_node.twins import Twins
from tallymesh_node.wallet import OUTBOX, Opening
from tallymesh_node.worker import WorkerService
from tallymesh_node.worker.yielding import Allowed

if TYPE_CHECKING:  # libp2p's trio-typing hides trio's own annotations from mypy
    from trio_typing import TaskStatus

log = logging.getLogger("tallymesh.node")

BINDING_VERSION = 1  # of an account that was never bound; enrolment.py raises it where it moves to another peer key
REACHABILITY_S = 300.0  # the owner's router may change
REACHABILITY_RETRY_S = 2.0  # until a first peer could be asked
SUBMIT_SLOTS = 2  # units side by side on a node that only submits: loss checks, evaluation, its own recomputations
STOPPED = "stopped"  # the code of the Leaves of a node that ends in good order
LEAVE_S = 2.0  # for payers to hear it; whoever stops a node waits for that
DISK_SHARE = 0.5  # of the free disk, for blobs, where the owner names no limit


class Node:
    """One node. `run` serves until `stop` is called or it is cancelled."""

    def __init__(self, config: Config, wallet: Opening | None = None) -> None:
        self.config = config
        self._wallet = wallet or Opening(config.home, config.password_file)
        self.home = config.home
        self.network_file = network_file.load(config.network)
        self.domains = Domains.of(self.network_file)
        self.parameters = self.network_file.parameters
        self.started = time.time()
        self._stop = trio.Event()
        self.reachability = Reachability(None, "checking")
        self._canary: Canary | None = None
        self._confirmed = False
        self._classed = trio.Event()  # the class of the cores is confirmed
        self.proving: Proving | None = None  # of a node that sells cards
        self._cpus: frozenset[int] = frozenset(os.sched_getaffinity(0))  # that foreign code is on
        self._confined: frozenset[int] = frozenset()  # templates that were told so
        self.settings = config  # with what the owner changed since
        self.nearby: Nearby | None = None
        self.payer: PayerService | None = None
        self.worker: WorkerService | None = None
        self.auditor: AuditorService | None = None
        self.claims: ClaimsService | None = None
        self.quarrels: QuarrelsService | None = None

    def stop(self) -> None:
        self._stop.set()

    def open_executor(self, spool: Path, store: BlobStore, slots: int) -> SandboxExecutor:
        strict, lends = self.config.sandbox == "strict", self.config.works or self.config.audits
        return SandboxExecutor(
            spool,
            store.put,
            slots=slots,
            strict=strict,
            at_once=lends,
            admit=self.room.admit,
            base_only=self._base_only,
            cards=cards() if lends and self.config.sell == "gpu" else (),
        )

    async def run(self, task_status: TaskStatus[str] = trio.TASK_STATUS_IGNORED) -> None:
        """Starts with the URL of the local API. TallymeshError where the node cannot start."""
        async with AsyncExitStack() as stack:
            self.home.mkdir(parents=True, exist_ok=True, mode=0o700)
            stack.enter_context(FolderLock(self.home))
            self.account, self.wallet_is_new = await trio.to_thread.run_sync(self._wallet.result)
            self.peer_key: PeerKey = load_or_create(self.home / "peer.key")
            self.machine: Machine = await trio.to_thread.run_sync(measure, self.home)
            self.database = stack.enter_context(Database(self.home))
            journal = SqlJournal(self.database)
            self.life = stack.enter_context(closing(Life(self.home)))
            self.restored = await self.life.begin(journal, time.time())
            journal.noted = self.life.note
            rpc = await stack.enter_async_context(Rpc(self.network_file.rpc_urls, chain_id=self.network_file.chain_id))
            outbox = stack.enter_context(closing(FileOutbox(self.home / OUTBOX)))
            self.chain = EscrowChain(rpc, self.network_file, self.account, outbox=outbox, policy=self.config.gas_policy)
            binding = bind(self.domains, self.account, self.peer_key, BINDING_VERSION)
            self.enrolment = Enrolment(
                self.chain,
                self.network_file,
                binding,
                slots=self.config.stake_slots if self.config.works else 0,
                works=self.config.works,
                rebind=lambda version: bind(self.domains, self.account, self.peer_key, version),
            )
            self.twins = Twins(self.peer_key.peer_id, binding.message.peer_id_hash, self.enrolment, time.time)
            self.steward = Steward(self.home, self._limits_of, self._obey)
            self.money = MoneyWatch(rpc, self.chain.contracts, self.account.address, self._escrow_wei)
            self.purse = Purse(
                self.chain,
                period_s=self.parameters.period_s,
                deployed_block=self.network_file.contracts.deployed_block,
                credits=not self.config.works,
            )
            self.blobs = BlobStore(self.home / "blobs", admit=lambda size: self.room.admit(size))
            self.room = Room(self.blobs, limit=self._for_blobs)
            self.capacity = from_machine(self.machine, self.settings, None, confirmed=False)
            lends = self.config.works or self.config.audits
            slots = max(self.capacity.cores if lends else SUBMIT_SLOTS, 1)
            # How many of these run is up to `Cores`, whose owner may allow more later.
            most = max(self.machine.cores, slots) if lends else slots
            self.executor = await stack.enter_async_context(self.open_executor(self.home / "spool", self.blobs, most))
            if lends and self.config.sell == "gpu":
                self._open_proving()
            self.book = OfferBook(Opener(self.domains, time.time), self.chain, time.time, own=self.account.address)
            self.book.heard_own = self.twins.heard
            self.network: Libp2pNetwork = await stack.enter_async_context(
                open_network(
                    self.peer_key,
                    self.network_file.topic,
                    listen=(f"/ip4/{self.config.listen_host}/tcp/{self.config.listen_port}",),
                    announce=self.config.announce,
                    bootstrap=self.network_file.bootstrap,
                    validator=self.book.validate,
                )
            )
            if self.config.looks_nearby(self.network_file.bootstrap):
                self.nearby = await stack.enter_async_context(open_nearby(self.network))
            self.book.learn_with(self.network)
            self.network.connections.standing = Circle(self.book.is_staked, self._partners, trio.current_time)
            self.exchange = await stack.enter_async_context(open_blobs(self.network, self.blobs, self._may_fetch))
            self.exchange.make_room = self.room.make
            self.publisher = Publisher(
                self.domains,
                self.account,
                binding,
                self.parameters,
                addresses=lambda: self.network.addresses,
                publish=self.network.gossip.publish,
                now=time.time,
                known_seq=lambda: self.book.seq_of(self.account.address),
            )
            self._open_carriers(binding)
            self._open_roles(self.exchange, journal, slots)
            await self._serve(task_status)

    def _open_proving(self) -> None:
        executor = self.executor
        self.proving = Proving(
            executor,
            executor.cards.all,
            driver=self.machine.gpus[0].driver if self.machine.gpus else "",
            prove_card=executor.cards.prove,
            obstacle=lambda: obstacle(executor.cards.all, bounded=executor.bounds_memory),
            changed=self._found_cards,
        )
        executor.doubt = self.proving.is_sound

    async def _prove(self) -> None:
        """Once it is known what the cores compute, which is a part of the class."""
        await self._classed.wait()
        assert self.proving is not None
        await self.proving.run(self._numeric_class())

    def _open_roles(self, exchange: BlobExchange, journal: SqlJournal, slots: int) -> None:
        self.cores = Cores(slots)
        shared: dict[str, Any] = {
            "network": self.network,
            "blobs": exchange,
            "executor": self.executor,
            "chain": self.chain,
            "journal": journal,
            "domains": self.domains,
            "key": self.account,
            "parameters": self.parameters,
            "clock": time.time,
        }
        if self.config.works:
            self.worker = WorkerService(
                **shared,
                cores=self.cores,
                current_offer=lambda: self.publisher.current,
                account_of=self.book.account_of,
                system=system_load,
                base_only=self.config.packages == "base",
            )
        if self.config.audits:
            self.auditor = AuditorService(**shared, cores=self.cores)
        if self.config.submits:
            self.payer = PayerService(
                **shared,
                offers=self.book,
                numeric_class=self._numeric_class,
                funded=lambda: self.enrolment.done,
            )

        timeless = {name: part for name, part in shared.items() if name != "clock"}
        self._open_claims(timeless)
        self._open_quarrels(timeless)

    def _open_carriers(self, binding: Binding) -> None:
        """Both sides: this node carries for others, and asks others where its own account has no gas."""
        chain, policy = RegistryChain(self.chain), self.config.gas_policy
        self.carrier = Carrier(self.network, chain, self.domains, policy, self.config.carry_fee_wei)
        self.carrier.open()
        self.asking = Asking(self.network, chain, self.domains, self.account, binding, self._carriers)
        self.enrolment.asking = self.asking

    def _partners(self) -> Iterator[str]:
        return partners(self.worker, self.auditor, self.payer)

    def _carriers(self) -> list[Source]:
        return self.book.staked_sources(besides=self.account.address)

    def _open_claims(self, shared: dict[str, Any]) -> None:
        """On a network that has them, for whoever works or audits."""
        claims = claims_of(self.chain, self.network_file)
        if claims is not None and (self.worker is not None or self.config.audits):
            self.claims = ClaimsService(
                **shared,
                claims=claims,
                cores=self.cores,
                source_of=self.book.source_of,
                account_of=self.book.account_of,
                works=self.worker.works if self.worker is not None else None,
                audits=self.config.audits,
                policy=Policy(patience_s=self.config.claim_patience_s),
            )

    def _open_quarrels(self, shared: dict[str, Any]) -> None:
        """On a network that has them: who orders may accuse, who works be accused, who audits be a member."""
        court = court_of(self.chain, self.network_file)
        if court is None:
            return
        self.quarrels = QuarrelsService(
            **shared,
            court=court,
            cores=self.cores,
            source_of=self.book.source_of,
            account_of=self.book.account_of,
            numeric_class=self._numeric_class,
            grounds=self._grounds,
            books=self.payer.books if self.payer is not None else tuple,
            claims=claims_of(self.chain, self.network_file) if self.payer is not None else None,
            audits=self.config.audits,
        )
        if self.payer is not None:
            self.payer.aside = self.quarrels.accused

    def _grounds(self) -> list[Grounds]:
        """For accusations, of all jobs of this node's owner."""
        return [] if self.payer is None else [each for book in self.payer.books() for each in grounds_of(book)]

    async def _serve(self, task_status: TaskStatus[str]) -> None:
        status = NodeStatus(self)
        server = ApiServer(
            status,
            self.home,
            host=self.config.api_host,
            port=self.config.api_port,
            hosts=self.config.api_names,
            network=self.config.network,
        )
        async with trio.open_nursery() as nursery:
            for loop in (
                self.chain.run,
                self.enrolment.run,
                self.money.run,
                self.purse.run,
                self._beat,
                self._drain,
                self._watch_reachability,
            ):
                nursery.start_soon(loop)
            nursery.start_soon(self.book.run, REFRESH_S if self.config.submits else REFRESH_IDLE_S)
            canaries = Canaries(self.machine, self.executor.run_task, self.executor.pool.wanted)
            nursery.start_soon(canaries.run, self._found_class)
            if self.proving is not None:
                nursery.start_soon(self._prove)
            await self.steward.look()  # before anything is offered, taken or run
            nursery.start_soon(self.steward.run)
            if self.config.works:
                nursery.start_soon(self.publisher.run)
            if not self.config.submits:  # else what lies in the store is its owner's own
                nursery.start_soon(self._sweeper().run)
            for service in (self.worker, self.auditor, self.payer, self.claims, self.quarrels):
                if service is not None:
                    await nursery.start(service.run)
            self.room.holders = holders_of(
                self.parameters,
                worker=self.worker,
                auditor=self.auditor,
                payer=self.payer,
                claims=self.claims,
                quarrels=self.quarrels,
            )
            self.room.open()
            nursery.start_soon(self.room.run)
            url = await nursery.start(server.run)
            log.info("ready: account %s, API %s", checksum(self.account.address), url)
            task_status.started(url)
            await self._stop.wait()
            if self.worker is not None:
                await self.worker.hand_over(STOPPED, LEAVE_S)
            nursery.cancel_scope.cancel()

    def _sweeper(self) -> Sweeper:
        auditing = (self.auditor, self.claims, self.quarrels)

        async def held() -> set[BlobId]:
            return await self.worker.held() if self.worker is not None else set()

        return Sweeper(
            self.blobs,
            held,
            wanted=lambda blob: self.worker is not None and self.worker.wants(blob),
            busy=lambda: any(not role.idle for role in auditing if role is not None),
            clock=time.time,
        )

    def _escrow_wei(self) -> int:
        """What the escrow holds for the owner's own jobs."""
        return sum(int(job.escrow_wei) for job in self.payer.jobs()) if self.payer else 0

    def _numeric_class(self) -> bytes:
        """Of this machine: a payer's own recomputations compare bit for bit inside it. Empty until it is measured."""
        return bytes.fromhex(self._canary.numeric_class) if self._canary else b""

    def _found_class(self, canary: Canary, confirmed: bool) -> None:
        self._canary = canary
        self._confirmed = confirmed
        if confirmed:
            self._classed.set()
        if self.proving is None:  # else the account's class is that of its cards
            self.enrolment.set_class(bytes.fromhex(canary.numeric_class))
        self._sell()

    def _found_cards(self) -> None:
        assert self.proving is not None
        if self.proving.sold:
            self.enrolment.set_class(self.proving.numeric_class)
        self._sell()

    # What the owner allows.

    def _limits_of(self, changes: Changes) -> Limits:
        settings = changed(self.config, changes)
        limits = settings.limits
        self.settings = settings  # once it is known that they make sense
        return limits

    def _base_only(self, job: bytes) -> bool:
        """Whether the owner runs no packages of this job: those of the owner's own jobs are no stranger's."""
        own = self.payer is not None and any(book.id == job for book in self.payer.books())
        return self.config.packages == "base" and not own

    def _for_blobs(self) -> int:
        """What unpacked packages of jobs leave of it."""
        return max(0, self._blobs_max() - self.executor.packages.bytes_used)

    def _blobs_max(self) -> int:
        """Bytes that blobs may have."""
        return self.settings.disk_gib << 30 or int((self.machine.disk_mib << 20) * DISK_SHARE)

    def _sell(self) -> None:
        """What there is, within what the owner allows now."""
        self.capacity = from_machine(
            self.machine, self.settings, self._canary, confirmed=self._confirmed, proving=self.proving
        )
        if self.config.works:
            something = self.proving is None or bool(self.proving.sold)
            lends = self.steward.stance.lends and not self.twins.yields
            self.publisher.offer(self.capacity if something and lends else None)

    def _obey(self, limits: Limits, stance: Stance) -> None:
        """The steward's word, once a second. What protects the owner's own money goes on whatever it is: settling,
        claims, cases."""
        self.twins.look()
        self._sell()
        self.exchange.pace_in.rate = self.exchange.pace_out.rate = float(limits.bandwidth_mib_s << 20)
        if self.config.works or self.config.audits:
            self.cores.count = max(self.capacity.cores, 1)
            self.cores.memory_mib = limits.memory_mib
            self._confine(limits)
        if self.worker is not None and not self._stop.is_set():
            # The first measure of the disk counts: what units themselves have filled since is no reason to leave them.
            offered = self.capacity
            self.worker.allow(
                Allowed(
                    code=stance.code,
                    cut=stance.cuts(trio.current_time()),
                    cores=offered.cores,
                    memory_mib=offered.memory_mib,
                    disk_mib=offered.disk_mib,
                )
            )
        if self.auditor is not None:
            self.auditor.away = stance.sentence or self.twins.sentence

    def _confine(self, limits: Limits) -> None:
        """Foreign code stays on as many cores as the owner lends, however many threads it starts."""
        templates = frozenset(template.pid for template in self.executor.templates)
        everywhere = frozenset(os.sched_getaffinity(0))
        cpus = some_cores(min(limits.cores, len(everywhere)), everywhere)
        if templates and (self.cores.busy or (cpus, templates) != (self._cpus, self._confined)):
            for template in templates:
                confine(template, cpus)
            self._cpus, self._confined = cpus, templates

    def _may_fetch(self, peer_id: str, blob: BlobId, ticket: bytes) -> bool:
        roles = (self.worker, self.auditor, self.payer, self.claims, self.quarrels)
        return any(role.may_fetch(peer_id, blob, ticket) for role in roles if role is not None)

    async def _drain(self) -> None:
        """Offers went into the book when gossip asked whether to pass them on; here they only leave its queue."""
        async for _ in self.network.gossip:
            pass

    async def _beat(self) -> None:
        while True:
            self.life.beat(time.time())
            await beats.pause(BEAT_S)

    async def _watch_reachability(self) -> None:
        while True:
            self.reachability = await check_reachability(self.network)
            known = self.reachability.reachable is not None
            await beats.pause(REACHABILITY_S if known else REACHABILITY_RETRY_S)


async def run_node(node: Node) -> None:
    """Run until SIGTERM or SIGINT; the second one ends at once."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_stop_on_signal, signals, node)
            await node.run()
            nursery.cancel_scope.cancel()


async def _stop_on_signal(signals: AsyncIterator[int], node: Node) -> None:
    async for number in signals:
        log.info("%s: ending in good order", signal.Signals(number).name)
        node.stop()
        break
    async for _ in signals:
        raise KeyboardInterrupt


def system_load() -> dict[str, float]:
    """A worker's system series, as its heartbeats carry them."""
    memory = psutil.virtual_memory()
    return {"cpu_percent": psutil.cpu_percent(), "memory_mib": memory.used / 2**20}
