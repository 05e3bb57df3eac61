"""Three training steps of four kinds of model from a fixed seed: machines that give equal digests are of one class.

Only bit equality can be checked between strangers, and a processor, a library build or an emulator may round
differently. The canary measures that instead of believing a list of processors, and scores the core beside it. Runs
in a process that was started under the numeric profile: `python -m tallymesh_learning.runtime.canary`.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import numpy
import torch
from blake3 import blake3
from torch import nn

from tallymesh.errors import LocalError
from tallymesh.units import canonical_json
from tallymesh_learning import tensors
from tallymesh_learning.runtime import numeric, profile

CPU: Final = torch.device("cpu")
STEPS: Final = 3
SEED: Final = 20_250_101
RATE, BETA1, BETA2, EPSILON = 0.01, 0.9, 0.999, 1e-8

# Seconds that the scored work takes on the reference core: one core of the machine of docs/measurements.md (AMD Zen 5).
REFERENCE_S: Final = 0.035
SCORE_RUNS: Final = 5  # the quickest counts: others' work only ever slows a run down


class Report(NamedTuple):
    numeric_class: bytes
    profile: bytes
    digests: dict[str, str]  # kind -> hex
    cpu_score: int  # thousandths of a reference core
    seconds: float


def run() -> bytes:
    """The report as JSON: ``class``, ``profile``, ``digests``, ``cpu_score``, ``seconds``. (A task of the sandbox.)"""
    report = measure()
    return canonical_json(
        {
            "class": report.numeric_class.hex(),
            "profile": report.profile.hex(),
            "digests": report.digests,
            "cpu_score": report.cpu_score,
            "seconds": round(report.seconds, 3),
        }
    )


def measure() -> Report:
    """Digests, class and score of this machine. LocalError where the process was not started under the profile."""
    wrong = profile.missing_environment()
    if wrong:
        raise LocalError("no_profile", f"The canary must run under the numeric profile; {', '.join(wrong)} is not set.")
    began = time.perf_counter()
    numeric.apply()
    digests = {make.__name__: train(make) for make in (mlp, cnn, gpt, lstm)}
    digests["arrays"] = arrays()
    score = cpu_score()
    return Report(class_id(digests), profile.profile_hash(), digests, score, time.perf_counter() - began)


def class_id(digests: dict[str, str]) -> bytes:
    """The numeric class: hash of the profile and the digests."""
    return blake3(b"tallymesh.class/" + profile.profile_hash() + canonical_json(digests)).digest()


def train(make: Callable[[], tuple[nn.Module, tuple[torch.Tensor, torch.Tensor]]], device: torch.device = CPU) -> str:
    """Digest of a model's state after `STEPS` steps of Adam (Kingma and Ba, 2015; written out, because torch's own
    takes longer to import than the canary to run). It is made on the CPU, wherever it is trained."""
    net, batch = make()
    if device != CPU:
        net, batch = net.to(device), (batch[0].to(device), batch[1].to(device))
    moments = {name: (torch.zeros_like(p), torch.zeros_like(p)) for name, p in net.named_parameters()}
    for step in range(1, STEPS + 1):
        numeric.reseed(SEED, "step", step)
        net.zero_grad()
        loss_of(net, batch).backward()
        with torch.no_grad():
            for name, parameter in net.named_parameters():
                first, second = moments[name]
                gradient = parameter.grad
                first.mul_(BETA1).add_(gradient, alpha=1 - BETA1)
                second.mul_(BETA2).addcmul_(gradient, gradient, value=1 - BETA2)
                spread = (second.sqrt() / math.sqrt(1 - BETA2**step)).add_(EPSILON)
                parameter.addcdiv_(first, spread, value=-RATE / (1 - BETA1**step))
    return blake3(tensors.encode(net.state_dict())).hexdigest()


def arrays() -> str:
    """Digest of what a map unit may do with numpy alone: products, transcendental functions, sums."""
    generator = numpy.random.Generator(numpy.random.PCG64(SEED))
    left = generator.standard_normal((160, 160))
    wide = generator.standard_normal(10_007).astype(numpy.float32)
    parts = [
        left @ left.T,
        (left.astype(numpy.float32) @ left.astype(numpy.float32)),
        numpy.exp(wide),
        numpy.log(numpy.abs(wide) + 1),
        numpy.sin(wide),
        numpy.tanh(left),
        wide.sum(),
        numpy.linalg.solve(left, left[0]),
    ]
    return blake3(b"".join(numpy.ascontiguousarray(part).tobytes() for part in parts)).hexdigest()


def cpu_score() -> int:
    """Speed of one core under the profile in thousandths of the reference core, from a fixed mixture of work: matrix
    products, element-wise passes over memory, and interpreted Python. CPU time, so that a busy machine scores the
    same."""
    numeric.reseed(SEED, "score")
    matrix, long = torch.randn(384, 384), torch.randn(1 << 20)
    best = math.inf
    for _ in range(SCORE_RUNS):
        began = time.process_time()
        for _ in range(16):
            matrix = torch.tanh(matrix @ matrix * 0.01)
        for _ in range(16):
            long = long * 0.999 + 0.001
        total = 0
        for number in range(150_000):
            total += number & 7
        best = min(best, time.process_time() - began)
    return max(1, round(1000 * REFERENCE_S / best))


def loss_of(net: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> Any:
    answer = net(batch[0])
    return nn.functional.cross_entropy(answer.reshape(-1, answer.shape[-1]), batch[1].reshape(-1))


def mlp() -> tuple[nn.Module, tuple[torch.Tensor, torch.Tensor]]:
    numeric.reseed(SEED, "mlp")
    net = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.LayerNorm(128), nn.Dropout(0.1), nn.Linear(128, 10))
    return net, (torch.randn(64, 64), torch.randint(10, (64,)))


def cnn() -> tuple[nn.Module, tuple[torch.Tensor, torch.Tensor]]:
    numeric.reseed(SEED, "cnn")
    net = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1),
        nn.GELU(),
        nn.AdaptiveAvgPool2d(4),
        nn.Flatten(),
        nn.Linear(256, 10),
    )
    return net, (torch.randn(16, 1, 20, 20), torch.randint(10, (16,)))


def gpt() -> tuple[nn.Module, tuple[torch.Tensor, torch.Tensor]]:
    numeric.reseed(SEED, "gpt")
    return _Gpt(), (torch.randint(64, (4, 24)), torch.randint(64, (4, 24)))


def lstm() -> tuple[nn.Module, tuple[torch.Tensor, torch.Tensor]]:
    numeric.reseed(SEED, "lstm")
    return _Lstm(), (torch.randint(64, (4, 16)), torch.randint(64, (4, 16)))


class _Gpt(nn.Module):  # type: ignore[misc] # torch's types are not followed
    """Two blocks of causal attention, 64 wide."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(64, 64), nn.Embedding(24, 64)
        self.queries = nn.ModuleList(nn.Linear(64, 192) for _ in range(2))
        self.forwards = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(64), nn.Linear(64, 128), nn.GELU(), nn.Linear(128, 64)) for _ in range(2)
        )
        self.head = nn.Linear(64, 64)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        count, length = tokens.shape
        hidden = self.tokens(tokens) + self.places(torch.arange(length, device=tokens.device))
        for queries, forwards in zip(self.queries, self.forwards, strict=True):
            query, key, value = queries(hidden).view(count, length, 3, 4, 16).permute(2, 0, 3, 1, 4)
            mixed = nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
            hidden = hidden + mixed.transpose(1, 2).reshape(count, length, 64)
            hidden = hidden + forwards(hidden)
        return self.head(hidden)


class _Lstm(nn.Module):  # type: ignore[misc] # torch's types are not followed
    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.cells, self.head = nn.Embedding(64, 32), nn.LSTM(32, 48, batch_first=True), nn.Linear(48, 64)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.head(self.cells(self.tokens(tokens))[0])


def main() -> None:
    try:
        sys.stdout.buffer.write(run() + b"\n")
    except LocalError as error:
        sys.stdout.write(json.dumps({"code": error.code, "sentence": str(error)}) + "\n")
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
