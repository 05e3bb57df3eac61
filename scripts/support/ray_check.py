"""backend="ray" beside backend="local": the same package, outputs and `model_sha`; scripts/ray_check runs it.

Once on a cluster that the job starts for itself, once on that of the program that submits it.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tallymesh
from tallymesh.client.job import Job

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

from fakes import area as programs

ITEMS = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
PATIENCE_S = 300.0  # for a local Ray to start and to be gone on a busy machine


def model() -> Any:
    import torch

    return torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.Tanh(), torch.nn.Linear(32, 4))


def loss(net: Any, batch: Any) -> Any:
    import torch

    return torch.nn.functional.cross_entropy(net(batch[0]), batch[1])


def digits() -> list[Any]:
    import torch

    torch.manual_seed(5)
    return [(torch.randn(16), index % 4) for index in range(120)]


def mapped(backend: str) -> list[Any]:
    return tallymesh.map(programs.area, ITEMS, scale=2.0, backend=backend).wait(progress=False).results()


def trained(backend: str) -> str:
    data = digits()
    job = tallymesh.train(
        model, loss, data[:96], test=data[96:], rounds=2, clients=3, work=1.0, local={"batch": 8}, backend=backend
    )
    job.wait(progress=False)
    print(f"  {backend}: accuracy {job.metrics['accuracy']:.3f} of {job.result.model_sha[:16]}…, {job.checks}")
    return str(job.result.model_sha)


def failed(backend: str) -> str:
    try:
        tallymesh.map(programs.fail, [1], backend=backend).wait(progress=False)
    except tallymesh.CallerError as error:
        return str(error)
    raise AssertionError("the unit failed and the job did not")


def said(backend: str) -> list[str]:
    return [str(line) for line in tallymesh.map(programs.talk, [7], backend=backend).logs(follow=True)]


def same(what: str, run: Callable[[str], Any]) -> None:
    took: dict[str, float] = {}
    found: dict[str, Any] = {}
    for backend in ("local", "ray"):
        began = time.monotonic()
        found[backend] = run(backend)
        took[backend] = time.monotonic() - began
    assert found["local"] == found["ray"], f"{what}: {found['local']!r} and {found['ray']!r}"
    print(f"{what}: the same; local {took['local']:.1f} s, ray {took['ray']:.1f} s")


def cancelled() -> None:
    job: Job = tallymesh.map(programs.sleep, [600], backend="ray")
    source: Any = job._source
    deadline = time.monotonic() + PATIENCE_S
    while not offspring(source._child.pid) and time.monotonic() < deadline:
        time.sleep(0.2)
    time.sleep(5.0)  # into the unit
    running = offspring(source._child.pid)
    began = time.monotonic()
    job.cancel()
    took = time.monotonic() - began
    while any(alive(pid) for pid in running) and time.monotonic() < deadline:
        time.sleep(0.2)
    left = [pid for pid in running if alive(pid)]
    assert not left, f"processes of a cancelled job are left: {left}"
    print(f"cancelled in {took:.1f} s; its {len(running)} processes are gone")


def offspring(root: int) -> set[int]:
    """Processes below `root`, Linux."""
    parents: dict[int, int] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                parents[int(name)] = int(Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
    found = {root}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {root}


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def main() -> None:
    import ray

    print(f"Ray {ray.__version__}, a cluster for each job")
    same("a map of 6 items", mapped)
    same("two rounds with three clients", trained)
    same("an error in the user's program", failed)
    same("what it printed", said)
    cancelled()
    print("the cluster of this program")
    ray.init(num_cpus=2, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    same("a map of 6 items", mapped)
    assert ray.is_initialized()
    assert ray.get(ray.put(1)) == 1, "the job ended a cluster that was not its own"
    ray.shutdown()


if __name__ == "__main__":
    main()
