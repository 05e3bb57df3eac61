"""What one MiB of a transfer costs, each part of it by itself, and what follows for the whole.

`bench transfer` prints it beside its result, from the same minutes: the machines that it runs on differ from one minute
to the next. The two sides of a transfer between neighbours take turns (a chunk is asked for when the one before is
written), so that the sum of all parts is what a MiB takes at least, whatever the number of cores.
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

PIECES = 128
PARTS = ("read", "seal", "loopback", "open", "hash", "hash", "write")  # the taker hashes the chunk, and the whole


def alone(folder: Path) -> dict[str, float]:
    """`PART_alone_ms` of CPU for a MiB; `fsync_alone_ms` of time; `bound_mib_per_s`, where two cores were free."""
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
        }
        began = time.perf_counter()
        os.fsync(descriptor)
        fsync_ms = 1000 * (time.perf_counter() - began) / PIECES
        found["read"] = _cpu_ms(lambda at: os.preadv(descriptor, [plain], at * MEBIBYTE))
    finally:
        os.close(descriptor)
        path.unlink()
    found["loopback"] = _loopback_ms(piece)
    whole_ms = sum(found[part] for part in PARTS) + fsync_ms
    told = {f"{part}_alone_ms": cost for part, cost in found.items()}
    return {**told, "fsync_alone_ms": fsync_ms, "bound_mib_per_s": 1000 / whole_ms}


def _cpu_ms(work: Callable[[int], object]) -> float:
    began = time.process_time()
    for at in range(PIECES):
        work(at)
    return 1000 * (time.process_time() - began) / PIECES


def _loopback_ms(piece: bytes) -> float:
    """Sending and receiving, both sides together."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        near = socket.create_connection(server.getsockname())
        far, _ = server.accept()
    buffer = memoryview(bytearray(MEBIBYTE))
    with near, far:
        sending = threading.Thread(target=lambda: [near.sendall(piece) for _ in range(PIECES)])
        began = time.process_time()
        sending.start()
        left = PIECES * MEBIBYTE
        while left:
            left -= far.recv_into(buffer, min(left, MEBIBYTE))
        sending.join()
    return 1000 * (time.process_time() - began) / PIECES
