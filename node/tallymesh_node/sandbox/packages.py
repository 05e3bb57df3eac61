"""The sets of wheels that jobs on this node use: unpacked once each, shown read-only to their units, dropped again.

    <folder>/<id of the set>/…

The archives are a stranger's, so a process in a sandbox of its own opens them (`tallymesh.unpacking`): it sees no
network and no folder of the owner's, and can write to one empty folder. What it made is kept for other units and jobs
that name the same set, as long as the owner's limit on the disk allows. This module never imports what it keeps.
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

import msgspec
import trio

from tallymesh import unpacking, wheels
from tallymesh.errors import LocalError
from tallymesh.ids import BlobId
from tallymesh.wheels import Wheel
from tallymesh_node.interfaces import Failure
from tallymesh_node.sandbox import command, drop

BASE_ONLY: Final = "The owner of this machine allows the base set only."
SETS_KEPT: Final = 16  # unused ones: a node rarely works for more jobs with different packages in a day
UNUSED_S: Final = 48 * 3600.0  # as blobs: an auditor on chain may ask for the same set so long
SWEEP_S: Final = 3600.0
UNPACK_S: Final = 600.0  # wall seconds for what takes 20 s of a core, on a machine that is loaded
_GONE: Final = ".gone"
_MODE: Final = 0o755  # the sandbox's user must be able to enter
SAID_MAX: Final = 500  # characters of what the process says


class _Set(msgspec.Struct):
    """`folder` is there: it was unpacked whole."""

    bytes: int
    users: int = 0
    used_s: float = 0.0


class Packages:
    """Owns `folder`, and empties it: what is in it was not watched while no node ran. `admit` says LocalError where so
    many bytes more are over the owner's limit."""

    def __init__(self, folder: Path, admit: Callable[[int], None]) -> None:
        self.folder = folder
        self.unpacked = 0
        self._admit = admit
        self._sets: OrderedDict[str, _Set] = OrderedDict()  # the least recently used first
        self._numbers = itertools.count(1)
        self._dropped = trio.Event()
        self._lock = trio.Lock()  # one is unpacked at a time: it takes a core and a disk
        folder.mkdir(parents=True, exist_ok=True)
        os.chmod(folder, _MODE)
        for entry in folder.iterdir():
            shutil.rmtree(entry, ignore_errors=True)

    @property
    def bytes_used(self) -> int:
        """Of all sets, as files."""
        return sum(each.bytes for each in self._sets.values())

    async def run(self) -> None:
        """Drop old sets, and delete the files of dropped ones, until cancelled."""
        while True:
            with trio.move_on_after(SWEEP_S):
                await self._dropped.wait()
            self._dropped = trio.Event()
            self.sweep()
            for old in list(self.folder.glob(f"*{_GONE}")):  # 40,000 files take seconds
                await trio.to_thread.run_sync(lambda folder: shutil.rmtree(folder, ignore_errors=True), old)

    def sweep(self) -> None:
        """Drop what nobody has used for long, and all but the newest of what nobody uses."""
        unused = [name for name, each in self._sets.items() if not each.users]
        old = [name for name in unused if trio.current_time() - self._sets[name].used_s > UNUSED_S]
        for name in {*old, *unused[: max(0, len(unused) - SETS_KEPT)]}:
            self._drop(name)

    @asynccontextmanager
    async def used(self, wanted: Sequence[Wheel], inputs: Mapping[BlobId, Path]) -> AsyncIterator[str]:
        """While open the set is there; its name, "" for no wheels. Failure `program` where a wheel is none that may be
        used: the job names it, and it is the same everywhere. LocalError where this machine fails."""
        if not wanted:
            yield ""
            return
        name = wheels.set_id(wanted)
        async with self._lock:
            kept = self._sets.get(name)
            if kept is None:
                kept = await self._obtain(name, wanted, inputs)
            kept.users += 1
            self._sets.move_to_end(name)
        try:
            yield name
        finally:
            kept.users -= 1
            kept.used_s = trio.current_time()
            self.sweep()

    async def _obtain(self, name: str, wanted: Sequence[Wheel], inputs: Mapping[BlobId, Path]) -> _Set:
        for wheel in wanted:
            size = inputs[wheel.blob].stat().st_size
            if size != wheel.size:
                raise Failure("program", f"{wheel.file} has {size} bytes, not the {wheel.size} that the job says.")
        draft = self.folder / f"{name}.part"
        await trio.to_thread.run_sync(self._empty, draft)
        try:
            self._make_room(sum(wheel.size for wheel in wanted))
            await self._unpack(draft, wanted, inputs)
            size = await trio.to_thread.run_sync(_size, draft)
            self._make_room(size)
            draft.rename(self.folder / name)
        except OSError as error:
            raise _no_disk(str(error)) from None
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(lambda: shutil.rmtree(draft, ignore_errors=True))
        self.unpacked += 1
        kept = self._sets[name] = _Set(size)
        return kept

    async def _unpack(self, draft: Path, wanted: Sequence[Wheel], inputs: Mapping[BlobId, Path]) -> None:
        # The spool is not for it: it is shown its own empty folder in that place.
        made = command.build(
            draft, environment={}, arguments=[command.OUT], module="tallymesh.unpacking", writable=draft
        )
        with ExitStack() as stack:
            files = [stack.enter_context(inputs[wheel.blob].open("rb")) for wheel in wanted]
            requests = [
                unpacking.Request(wheel.file, wheel.blob, wheel.size, file.fileno())
                for wheel, file in zip(wanted, files, strict=True)
            ]
            with trio.move_on_after(UNPACK_S) as scope:
                done = await trio.run_process(
                    made.argv,
                    stdin=msgspec.json.encode(requests),
                    capture_stdout=True,
                    stderr=subprocess.STDOUT,
                    check=False,
                    env={},
                    cwd="/",
                    pass_fds=[file.fileno() for file in files],
                    start_new_session=True,
                )
            if scope.cancelled_caught:
                raise LocalError("slow", f"A job's packages were not unpacked within {UNPACK_S:.0f} s.")
        if done.returncode:
            _complain(done.stdout.decode(errors="replace"), done.returncode)

    def _make_room(self, size: int) -> None:
        """Drop unused sets, the oldest first, until the owner's limit has room for so many bytes."""
        while True:
            try:
                self._admit(size)
                return
            except LocalError:
                unused = next((name for name, each in self._sets.items() if not each.users), None)
                if unused is None:
                    raise
                self._drop(unused)

    def _drop(self, name: str) -> None:
        """At once for whoever asks; the files go in the background."""
        del self._sets[name]
        (self.folder / name).rename(self.folder / f"{name}-{next(self._numbers)}{_GONE}")
        self._dropped.set()

    def _empty(self, draft: Path) -> None:
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir()
        os.chmod(draft, _MODE)
        if os.geteuid() == 0:
            os.chown(draft, drop.SANDBOX_ID, drop.SANDBOX_ID)


def _complain(said: str, status: int) -> None:
    code, _, sentence = said.partition(": ")
    if code == "bad_wheel":
        raise Failure("program", sentence[:SAID_MAX])
    if code == "disk":
        raise _no_disk(sentence[:SAID_MAX])
    raise LocalError("no_sandbox", f"A job's packages could not be unpacked (status {status}): {said[-SAID_MAX:]}")


def _no_disk(why: str) -> LocalError:
    remedy = "Free some space, or choose another data folder."
    return LocalError("disk", f"A job's packages cannot be put in place: {why}.", remedy=remedy)


def _size(folder: Path) -> int:
    """Bytes that the files take, each in whole blocks."""
    return sum(
        os.lstat(os.path.join(place, name)).st_blocks * 512 for place, _, names in os.walk(folder) for name in names
    )
