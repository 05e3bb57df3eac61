"""What a card is made to show, with the CPU in a card's place: that each task does what the node reads it for.

On a card none of this has run; scripts/gpu_check does that.
"""

from __future__ import annotations

import ctypes
import json
import os
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import torch

from tallymesh.errors import LocalError
from tallymesh_learning.runtime import card, numeric, profile
from tallymesh_node import proving

MEBIBYTE = 1 << 20


@pytest.fixture(autouse=True)
def _cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is large, and what CUDA would be asked has an answer."""
    monkeypatch.setattr(profile, "missing_environment", lambda kind: [])
    apply = numeric.apply
    monkeypatch.setattr(numeric, "apply", lambda kind=profile.CPU: apply())
    monkeypatch.setattr(numeric, "_device", torch.device("cpu"))
    about = SimpleNamespace(multi_processor_count=132, major=9, minor=0, total_memory=4096 * MEBIBYTE)
    answers = {
        "is_available": lambda: True,
        "synchronize": lambda: None,
        "get_device_name": lambda number: "A CPU",
        "get_device_properties": lambda number: about,
        "mem_get_info": lambda: (MEBIBYTE, 2 * MEBIBYTE),
    }
    for name, answer in answers.items():
        monkeypatch.setattr(torch.cuda, name, answer)
    for name, value in (("SIZE", 64), ("ROUNDS", 2), ("COPY_BYTES", 4096), ("PIECE_BYTES", MEBIBYTE)):
        monkeypatch.setattr(card, name, value)


@pytest.mark.slow
def test_what_is_measured_is_read_and_is_the_same_twice() -> None:
    first, second = (msgspec.json.decode(card.measure(), type=proving.Report) for _ in range(2))
    assert first.identity == second.identity
    assert (first.name, first.parts, first.memory_mib) == ("A CPU", "132x9.0", 4096)
    assert set(first.digests) == {"mlp", "cnn", "gpt", "lstm", "product", "copy", "unit"}
    assert len(set(first.digests.values())) == len(first.digests)
    assert min(first.tflops, first.to_gib_s, first.from_gib_s) >= 0


def test_a_card_that_does_not_answer_or_has_no_profile_measures_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(LocalError) as caught:
        card.measure()
    assert caught.value.code == "no_gpu"
    monkeypatch.setattr(profile, "missing_environment", lambda kind: ["CUBLAS_WORKSPACE_CONFIG"])
    with pytest.raises(LocalError, match="CUBLAS_WORKSPACE_CONFIG"):
        card.measure()


def test_bytes_that_a_copy_changes_are_no_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "equal", lambda one, other: False)
    with pytest.raises(LocalError) as caught:
        card._copy()
    assert caught.value.code == "bad_gpu"


def test_what_one_program_leaves_the_next_one_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    written = msgspec.json.decode(card.fill(), type=proving._Filled)
    assert 0.79 * MEBIBYTE < written.bytes <= 0.8 * MEBIBYTE
    left = torch.zeros(written.bytes, dtype=torch.uint8)
    monkeypatch.setattr(torch, "empty", lambda *size, **more: left)
    assert msgspec.json.decode(card.leftovers(), type=proving._Filled) == proving._Filled(written.bytes, 0)
    left[800:1600] = card.PATTERN
    assert msgspec.json.decode(card.leftovers(), type=proving._Filled).words == 100
    torch.utils.deterministic.fill_uninitialized_memory = True


def test_a_program_that_does_not_care_which_cards_it_was_given_asks_the_driver(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-0")
    monkeypatch.setenv("NVIDIA_VISIBLE_DEVICES", "GPU-0")
    count = "import os; print(sum('VISIBLE' in name for name in os.environ))"
    monkeypatch.setattr(card, "_COUNT", count)
    assert msgspec.json.decode(card.others(), type=proving._Count).count == 0
    assert "CUDA_VISIBLE_DEVICES" in os.environ


@pytest.mark.parametrize(("kind", "flags"), [("pinned", 0), ("managed", 1)])
@pytest.mark.parametrize(("gives", "taken"), [(2, 2), (9, 3)])
def test_memory_is_taken_until_it_is_refused_or_enough_and_what_is_taken_is_written(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], kind: str, flags: int, gives: int, taken: int
) -> None:
    given: list[Any] = []

    def take(place: Any, size: ctypes.c_size_t, wanted: ctypes.c_uint) -> int:
        assert wanted.value == flags
        if len(given) == gives:
            return 2  # CUDA_ERROR_OUT_OF_MEMORY
        given.append(ctypes.create_string_buffer(size.value))
        place._obj.value = ctypes.addressof(given[-1])
        return 0

    refuse = SimpleNamespace(cuMemHostAlloc=None, cuMemAllocManaged=None)
    setattr(refuse, "cuMemHostAlloc" if kind == "pinned" else "cuMemAllocManaged", take)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: refuse)
    answer = card.greedy(json.dumps({"kind": kind, "most_mib": 3}).encode())
    assert msgspec.json.decode(answer, type=proving._Taken).mib == taken
    assert capsys.readouterr().out == proving.TAKES + "\n"
    assert all(each.raw == b"\1" * MEBIBYTE for each in given)
    assert len(given) == taken
