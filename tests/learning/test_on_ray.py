"""backend="ray" as far as it is ours: what is sent, and what is done with what comes back.

scripts/ray_check has a real Ray.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

import tallymesh
from fakes import area as programs
from fakes.ray import FakeRay, RayError
from tallymesh import CallerError, LocalError, units
from tallymesh.client import local
from tallymesh.prepare import PreparedJob, prepare_map
from tallymesh_learning.local import LocalRun
from tallymesh_learning.on_ray import TRIES, RayPool, connect, run_here
from tallymesh_learning.runtime import profile


def job() -> PreparedJob:
    return prepare_map(programs.area, [1.0, 2.0, 3.0], {"scale": 2.0}, profile=profile.profile_hash())


def done(output: bytes) -> tuple[str, str, bytes]:
    return "done", json.dumps(["{}", {"run": 0.5}, 0, "", 0.1]), output


def honest(unit: bytes, probe: bytes, *blobs: bytes) -> Iterator[tuple[str, str, bytes]]:
    yield "line", json.dumps("hello"), b""
    yield done(b"of " + units.decode_unit(unit).input("item"))


def events(ray: FakeRay) -> list[Any]:
    with RayPool(ray) as pool, LocalRun(job(), pool=pool) as run:
        return list(run.events())


def test_units_become_tasks_and_their_outputs_the_result() -> None:
    ray, prepared = FakeRay(honest), job()
    with RayPool(ray) as pool, LocalRun(prepared, pool=pool) as run:
        found = list(run.events())
        outputs = [run.blob(bytes.fromhex(name)) for name in found[-1].data["outputs"]]
    assert outputs == [b"of " + item for item in prepared.spec.inputs]
    assert [event.data["line"] for event in found if event.kind == "log"] == ["hello"] * 3
    assert ray.options["num_cpus"] == 1
    assert ray.is_shut


def test_ray_is_given_bytes_alone_and_each_blob_once() -> None:
    """It pickles what it carries: bytes are the same bytes everywhere, and hold no code."""
    ray, prepared = FakeRay(honest), job()
    with RayPool(ray) as pool, LocalRun(prepared, pool=pool) as run:
        list(run.events())
    assert {type(each) for each in ray.stored} == {bytes}
    assert all({type(each) for each in given[:2]} == {bytes} for given in ray.given)
    assert len(ray.stored) == len(set(ray.stored)) == 4  # the program and three items, for three units


def test_a_unit_whose_ray_worker_is_lost_is_given_to_another() -> None:
    lost: list[bytes] = []

    def now_and_then(unit: bytes, probe: bytes, *blobs: bytes) -> Iterator[tuple[str, str, bytes]]:
        if unit not in lost:
            lost.append(unit)
            raise RayError("The node died.")
        yield from honest(unit, probe, *blobs)

    assert events(FakeRay(now_and_then))[-1].kind == "done"
    assert len(lost) == 3


def test_a_unit_that_is_lost_each_time_ends_the_job() -> None:
    def never(unit: bytes, probe: bytes, *blobs: bytes) -> Iterator[tuple[str, str, bytes]]:
        raise RayError("Out of memory.")
        yield

    ray = FakeRay(never)
    with pytest.raises(LocalError, match=r"lost 3 times on the Ray cluster: Out of memory\."):
        events(ray)
    assert max(ray.given.count(given) for given in ray.given) <= TRIES
    assert ray.is_shut


def test_a_task_that_ends_without_a_word_is_lost() -> None:
    def silent(unit: bytes, probe: bytes, *blobs: bytes) -> Iterator[tuple[str, str, bytes]]:
        yield from ()

    with pytest.raises(LocalError, match="without a word"):
        events(FakeRay(silent))


def test_what_the_program_raised_is_told_as_on_the_local_backend() -> None:
    def failing(unit: bytes, probe: bytes, *blobs: bytes) -> Iterator[tuple[str, str, bytes]]:
        told = {"code": "program", "sentence": "ValueError: flat", "traceback": "area.py, line 13"}
        yield "failed", json.dumps(told), b""

    with pytest.raises(CallerError, match=r"input \d failed \(program\): ValueError: flat\narea\.py, line 13"):
        events(FakeRay(failing))


def test_a_job_that_ends_early_takes_its_tasks_back() -> None:
    ray = FakeRay(honest)
    with RayPool(ray) as pool, LocalRun(job(), pool=pool) as run:
        next(run.events())
    assert ray.cancelled == 3
    assert ray.is_shut


def test_a_machine_with_another_profile_runs_nothing() -> None:
    prepared = job()
    spec = units.Unit(prepared.spec.program, "area:area", (), b"{}", 0, b"\x01" * 32)
    [(kind, told, output)] = run_here(units.encode(spec), b"")
    assert (kind, json.loads(told)["code"], output) == ("failed", "other_profile", b"")


def test_without_ray_the_line_that_installs_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delenv("TALLYMESH_BUILD", raising=False)
    for call in (connect, lambda: tallymesh.map(programs.area, [1], backend="ray")):
        with pytest.raises(CallerError, match="Ray, which is not installed") as caught:
            call()
        assert caught.value.code == "no_ray"
        assert caught.value.remedy == "pip install 'tallymesh[learning,ray]'"


def test_a_job_uses_the_cluster_that_its_program_is_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    context = SimpleNamespace(gcs_address="127.0.0.1:6379")
    here = SimpleNamespace(is_initialized=lambda: True, get_runtime_context=lambda: context)
    monkeypatch.setitem(sys.modules, "ray", here)
    assert local.cluster() == {"RAY_ADDRESS": "127.0.0.1:6379"}
    monkeypatch.setenv("RAY_ADDRESS", "elsewhere:6379")
    assert local.cluster() == {}
    monkeypatch.delenv("RAY_ADDRESS")
    here.is_initialized = lambda: False
    assert local.cluster() == {}
