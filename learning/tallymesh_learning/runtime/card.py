"""What a card is made to show before anybody is sold it: tasks that a node runs in the very sandbox that jobs get.

`measure` computes with it (a short product and copy test, the canary's models, one training unit through the runner);
run twice, in two processes, its digests must be equal. `fill` and `leftovers` are one program and the next: whether
the second can read what the first left in the card's memory. `greedy` takes more of the machine's memory through the
driver than its limit allows, and should not live to tell. The node judges what they say (node: proving.py).

`others` looks for cards that were not leased.

`begin` runs in every unit that has a card, before foreign code. All of it is written to CUDA's documentation and was
never run on a card by this project: where it is wrong, the card is not sold.
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import torch
from blake3 import blake3

from tallymesh import program
from tallymesh.errors import LocalError
from tallymesh.ids import blob_id
from tallymesh.units import Input, Unit, canonical_json, encode
from tallymesh_learning import data, options, tensors, training
from tallymesh_learning.runtime import canary, numeric, profile, runner

SIZE: Final = 4096  # of the matrices: 64 MiB each, large enough for any card to be busy
ROUNDS: Final = 20
COPY_BYTES: Final = 256 << 20
UNIT_STEPS: Final = 8
SHARE: Final = 0.8  # of the card's free memory is filled, and looked at by the next program
PATTERN: Final = 0x5A
PIECE_BYTES: Final = 64 << 20
PIECES_MAX: Final = 1024
_WORD: Final = 8
_GiB: Final = 1 << 30

# The unit: a program as anybody's, read from an archive.
_MODULE: Final = b"""import torch

def model():
    return torch.nn.Sequential(
        torch.nn.Conv2d(1, 8, 3, padding=1), torch.nn.BatchNorm2d(8), torch.nn.ReLU(), torch.nn.Flatten(),
        torch.nn.Linear(512, 64), torch.nn.Dropout(0.1), torch.nn.Linear(64, 10))

def loss(net, batch):
    return torch.nn.functional.cross_entropy(net(batch[0]), batch[1])
"""


_COUNT: Final = """import ctypes
driver, count = ctypes.CDLL("libcuda.so.1"), ctypes.c_int(-1)
failed = driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count))
print(-1 if failed else count.value)
"""


def begin() -> None:
    """Wake the card, under the profile's flags. LocalError where it cannot be used; then no foreign code has run."""
    numeric.apply(profile.GPU)
    if not torch.cuda.is_available():
        raise LocalError("no_gpu", f"torch {torch.__version__} sees no GPU: its build or the driver does not answer.")
    torch.zeros(1, device=numeric.device())
    torch.cuda.synchronize()


def measure() -> bytes:
    """JSON: ``name``, ``parts`` (how many multiprocessors, of which kind: cards of one name may differ in them, and
    libraries choose kernels by them), ``memory_mib``, ``torch``, ``cuda``, ``cudnn``, ``digests``, ``tflops``,
    ``to_gib_s``, ``from_gib_s``."""
    wrong = profile.missing_environment(profile.GPU)
    if wrong:
        raise LocalError("no_profile", f"Not started under the numeric profile of GPUs: {', '.join(wrong)} is not set.")
    begin()
    digests = {make.__name__: _trained(make) for make in (canary.mlp, canary.cnn, canary.gpt, canary.lstm)}
    digests["product"], tflops = _product()
    digests["copy"], there, back = _copy()
    digests["unit"] = train(profile.GPU)
    about = torch.cuda.get_device_properties(0)
    return canonical_json(
        {
            "name": torch.cuda.get_device_name(0),
            "parts": f"{about.multi_processor_count}x{about.major}.{about.minor}",
            "memory_mib": int(about.total_memory) >> 20,
            "torch": torch.__version__,
            "cuda": str(torch.version.cuda),
            "cudnn": str(torch.backends.cudnn.version()),
            "digests": digests,
            "tflops": round(tflops, 3),
            "to_gib_s": round(there, 3),
            "from_gib_s": round(back, 3),
        }
    )


def fill() -> bytes:
    """Write a pattern into most of what is free, and end without clearing it. JSON: ``bytes``."""
    begin()
    count = _most()
    torch.full((count,), PATTERN, dtype=torch.uint8, device=numeric.device())
    torch.cuda.synchronize()
    return canonical_json({"bytes": count})


def leftovers() -> bytes:
    """Words of the pattern in memory that this program was given and has not written. JSON: ``bytes``, ``words``."""
    begin()
    torch.utils.deterministic.fill_uninitialized_memory = False  # what is there, is read
    count = _most()
    memory = torch.empty(count, dtype=torch.uint8, device=numeric.device())
    wanted = int.from_bytes(bytes([PATTERN]) * _WORD, "little")
    words = memory[: count - count % _WORD].view(torch.int64)
    found = sum(int((words[at : at + SIZE * SIZE] == wanted).sum()) for at in range(0, len(words), SIZE * SIZE))
    return canonical_json({"bytes": count, "words": found})


def others() -> bytes:
    """JSON: ``count``, the cards that the driver lets a program have that does not care for CUDA_VISIBLE_DEVICES; -1
    where it gives such a program none."""
    hidden = {name: value for name, value in os.environ.items() if not name.endswith("VISIBLE_DEVICES")}
    command = [sys.executable, "-S", "-c", _COUNT]
    done = subprocess.run(command, env=hidden, capture_output=True, text=True, check=True)  # noqa: S603 - our own
    return canonical_json({"count": int(done.stdout)})


def greedy(payload: bytes) -> bytes:
    """Say "takes", and take memory of the machine through the driver, piece by piece, until it is refused or `most_mib`
    are held; every page is written. `payload`: JSON with ``kind`` (``pinned`` or ``managed``) and ``most_mib``. JSON:
    ``mib``."""
    wanted = json.loads(payload)
    begin()
    driver = ctypes.CDLL("libcuda.so.1")
    take = {"pinned": driver.cuMemHostAlloc, "managed": driver.cuMemAllocManaged}[wanted["kind"]]
    flags = 0 if wanted["kind"] == "pinned" else 1  # CU_MEM_ATTACH_GLOBAL
    held = 0
    print("takes", flush=True)
    for _ in range(PIECES_MAX):
        place = ctypes.c_void_p()
        if held >= wanted["most_mib"] or take(ctypes.byref(place), ctypes.c_size_t(PIECE_BYTES), ctypes.c_uint(flags)):
            break
        ctypes.memset(place, 1, PIECE_BYTES)
        held += PIECE_BYTES >> 20
    return canonical_json({"mib": held})


def _most() -> int:
    free, _ = torch.cuda.mem_get_info()
    return int(free * SHARE) // _WORD * _WORD


def _trained(make: Callable[[], Any]) -> str:
    """As the canary trains it, on the card: made on the CPU, so that every card starts from the same bytes."""
    return canary.train(make, numeric.device())


def _product() -> tuple[str, float]:
    """Digest of a matrix product, and 1e12 operations a second. float32 without TF32."""
    numeric.reseed(canary.SEED, "product")
    a, b = (torch.randn(SIZE, SIZE).to(numeric.device()) for _ in range(2))
    c = a @ b
    torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(ROUNDS):
        c = a @ b
    torch.cuda.synchronize()
    seconds = time.perf_counter() - began
    return blake3(tensors.to_bytes(c)).hexdigest(), 2 * SIZE**3 * ROUNDS / seconds / 1e12


def _copy() -> tuple[str, float, float]:
    """Digest of bytes that went to the card and came back, and GiB a second each way. LocalError where they changed."""
    numeric.reseed(canary.SEED, "copy")
    host = torch.randint(256, (COPY_BYTES,), dtype=torch.uint8)
    there = host.to(numeric.device())
    back = torch.empty_like(host)
    speeds = []
    for source, target in ((host, there), (there, back)):
        torch.cuda.synchronize()
        began = time.perf_counter()
        for _ in range(ROUNDS):
            target.copy_(source)
        torch.cuda.synchronize()
        speeds.append(COPY_BYTES * ROUNDS / (time.perf_counter() - began) / _GiB)
    if not torch.equal(host, back):
        raise LocalError("bad_gpu", "Bytes that were copied to the card and back are not what they were.")
    return blake3(tensors.to_bytes(back)).hexdigest(), speeds[0], speeds[1]


def train(kind: str) -> str:
    """Digest of what a segment of training leaves, through the runner as any job's, under the profile `kind`."""
    with tempfile.TemporaryDirectory(prefix="unit-") as place:
        return _segment(Path(place), kind)


def _segment(folder: Path, kind: str) -> str:
    (folder / "in" / "blobs").mkdir(parents=True)
    numeric.reseed(canary.SEED, "unit")
    net_seed = canary.SEED
    archive = program.pack({"card_unit.py": _MODULE})
    with program.importable(program.unpack(archive)):
        net = training.build_model(program.resolve("card_unit:model"), net_seed)
    state = {**training.model_tensors(net), training.STEP: torch.tensor(0, dtype=torch.int64)}
    columns = {"0": torch.randn(64, 1, 8, 8), "1": torch.randint(10, (64,))}
    config = options.Config(
        model="card_unit:model",
        loss="card_unit:loss",
        local=options.local({"optimizer": "adam", "lr": 0.01, "batch": 16}),
        seed=net_seed,
        steps=UNIT_STEPS,
        total=UNIT_STEPS,
    )
    names = []
    for blob in (archive, training.encode_state(state), data.encode(data.Shard(columns))):
        names.append(blob_id(blob))
        (folder / "in" / "blobs" / names[-1].hex()).write_bytes(blob)
    inputs = (Input("state", names[1]), Input("data", names[2]))
    unit = Unit(names[0], "tallymesh:segment", inputs, options.encode(config), net_seed, profile.profile_hash(kind))
    (folder / "in" / "unit").write_bytes(encode(unit))
    if not runner.run_unit(folder, lambda kind, value: None):
        failure = json.loads((folder / "out" / "failure").read_bytes())
        raise LocalError("bad_gpu", f"A training unit failed: {failure['sentence']}")
    return blake3((folder / "out" / "output").read_bytes()).hexdigest()
