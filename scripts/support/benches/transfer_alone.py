"""What one MiB of a transfer costs, each part of it by itself, and what follows for the whole.

`bench transfer` prints it beside its result, from the same minutes: the machines that it runs on differ from one minute
to the next. Between neighbours one chunk is on its way at a time, in records: the giver makes a record while the taker
works on the one before, so that a MiB takes at least the taker's parts and the giver's for one record, whatever the
number of cores; or what the disk takes, which works beside both.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

from blake3 import blake3
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from benches.probes import MEBIBYTE
from tallymesh_node.network.direct import PIECE_BYTES

PIECES = 128
GIVES = ("read", "seal", "send")
TAKES = ("receive", "open", "hash", "hash", "write")  # it hashes the chunk, and the whole


def alone(folder: Path) -> dict[str, float]:
    """`PART_alone_ms` of CPU for a MiB; `fsync_alone_ms` of time; `bound_mib_per_s`, where two cores were free.
    `rewrite` is `write` into pages that the file has already: the difference is what new pages cost this machine."""
    piece, sealed, plain = os.urandom(MEBIBYTE), bytearray(MEBIBYTE + 16), bytearray(MEBIBYTE)
    cipher = AESGCM(bytes(32))
    cipher.encrypt_into(bytes(12), piece, None, sealed)
    path = folder / "alone"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    try:
        found = {
            "hash": _cpu_ms(lambda at: blake3(piece).digest()),
            "seal": _cpu_ms(lambda at: cipher.encrypt_into(bytes(12), piece, None, sealed)),
            "open": _cpu_ms(lambda at: cipher.decrypt_into(bytes(12), sealed, None, plain)),
            "write": _cpu_ms(lambda at: os.pwrite(descriptor, piece, at * MEBIBYTE)),
            "rewrite": _cpu_ms(lambda at: os.pwrite(descriptor, piece, at * MEBIBYTE)),
        }
        began = time.perf_counter()
        os.fsync(descriptor)
        fsync_ms = 1000 * (time.perf_counter() - began) / PIECES
        found["read"] = _cpu_ms(lambda at: os.preadv(descriptor, [plain], at * MEBIBYTE))
    finally:
        os.close(descriptor)
        path.unlink()
    found["send"], found["receive"] = _loopback_ms(piece)
    takes_ms, gives_ms = (sum(found[part] for part in parts) for parts in (TAKES, GIVES))
    whole_ms = max(takes_ms + gives_ms * PIECE_BYTES / MEBIBYTE, fsync_ms)
    told = {f"{part}_alone_ms": cost for part, cost in found.items()}
    return {**told, "fsync_alone_ms": fsync_ms, "bound_mib_per_s": 1000 / whole_ms}


def _cpu_ms(work: Callable[[int], object]) -> float:
    began = time.process_time()
    for at in range(PIECES):
        work(at)
    return 1000 * (time.process_time() - began) / PIECES


def _loopback_ms(piece: bytes) -> tuple[float, float]:
    """Sending, and receiving."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        near = socket.create_connection(server.getsockname())
        far, _ = server.accept()
    buffer = memoryview(bytearray(MEBIBYTE))
    sent: list[float] = []

    def send() -> None:
        began = time.thread_time()
        for _ in range(PIECES):
            near.sendall(piece)
        sent.append(1000 * (time.thread_time() - began) / PIECES)

    with near, far:
        sending = threading.Thread(target=send)
        began = time.thread_time()
        sending.start()
        left = PIECES * MEBIBYTE
        while left:
            left -= far.recv_into(buffer, min(left, MEBIBYTE))
        received = 1000 * (time.thread_time() - began) / PIECES
        sending.join()
    return sent[0], received
