"""The two numeric profiles: what their hashes cover, and that the one of CPUs is what it always was."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from blake3 import blake3

from tallymesh.units import canonical_json
from tallymesh_learning.runtime import profile

VERSIONS = {"torch": "2.13.0+cpu", "numpy": "2.4.6", "safetensors": "0.8.0"}


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """An installation that is always the same one."""
    versions = dict(VERSIONS)
    profile.profile_hash.cache_clear()
    monkeypatch.setattr(profile, "version", lambda package: versions[package])
    monkeypatch.setattr(profile.platform, "machine", lambda: "x86_64")
    yield versions
    profile.profile_hash.cache_clear()


def test_the_profile_of_cpus_is_byte_for_byte_what_it_was_before_there_was_another(installed: dict[str, str]) -> None:
    """It is in every unit that was ever ordered."""
    golden = "19991db2cc443e7d39c9768c27935923114bf2bbf2cfbbd179d9365475c65a15"
    described = canonical_json({**profile.describe(), "python": "3.11"})
    assert blake3(b"tallymesh.profile/" + described).hexdigest() == golden
    assert blake3(b"tallymesh.profile/" + canonical_json(profile.describe())).digest() == profile.profile_hash()
    assert profile.environment()["CUDA_VISIBLE_DEVICES"] == "", "units on CPUs see no card"


def test_whoever_has_torch_for_cpus_can_order_units_for_cards(installed: dict[str, str]) -> None:
    ordered = profile.profile_hash(profile.GPU)
    profile.profile_hash.cache_clear()
    installed["torch"] = "2.13.0+cu130"
    assert profile.profile_hash(profile.GPU) == ordered
    profile.profile_hash.cache_clear()
    installed["torch"] = "2.14.0+cu130"
    assert profile.profile_hash(profile.GPU) != ordered


def test_a_hash_names_one_profile_or_none(installed: dict[str, str]) -> None:
    hashes = [profile.profile_hash(kind) for kind in profile.KINDS]
    assert len(set(hashes)) == len(profile.KINDS)
    assert [profile.kind_of(each) for each in hashes] == list(profile.KINDS)
    assert profile.kind_of(bytes(32)) == ""


def test_what_makes_cuda_repeat_itself_is_in_the_profile_and_which_card_is_not(installed: dict[str, str]) -> None:
    wanted = profile.environment(profile.GPU)
    assert wanted["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert wanted["NVIDIA_TF32_OVERRIDE"] == "0"
    assert "CUDA_VISIBLE_DEVICES" not in wanted
    described = profile.describe(profile.GPU)
    assert described["dtype"]["tf32"] is False
    assert described["deterministic"]["cudnn_benchmark"] is False
    changed = profile.environment() | profile.shown("GPU-1")
    assert profile.shown("GPU-1") == {"CUDA_VISIBLE_DEVICES": "GPU-1", "NVIDIA_VISIBLE_DEVICES": "GPU-1"}
    assert changed["CUDA_VISIBLE_DEVICES"] == "GPU-1"
