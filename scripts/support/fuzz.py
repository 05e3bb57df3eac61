"""`scripts/fuzz`: one decoder (or all, in turn) under as many hostile bytes as fit into a time.

The targets, their good messages and what they may raise are those of the tests (tests/hostile/targets.py). Atheris is
not in the project's dependencies: it is only used where it is importable.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CHILD = "--child" in sys.argv

if CHILD:  # coverage guides atheris only through what is imported under its eye
    import atheris

    with atheris.instrument_imports(include=["tallymesh", "tallymesh_ledger", "tallymesh_node", "tallymesh_learning"]):
        from hostile.inputs import NASTY, cut, hostile
        from hostile.targets import TARGETS, attempt
        from hostile.targets_of_states import STATES
else:
    from hostile.inputs import NASTY, cut, hostile
    from hostile.targets import TARGETS, attempt
    from hostile.targets_of_states import STATES

ALL = {**TARGETS, **STATES}
MAX_BYTES = 1 << 16  # of one input: every decoder's interesting lengths are below
MEMORY_MIB = 2048  # above it atheris calls it a fault
INPUT_S = 10  # one input that takes longer is a fault


def with_atheris(name: str, seconds: float, folder: Path) -> int:
    """libFuzzer ends the process, so this runs in one of its own; its faults lie in `folder`."""
    corpus = folder / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    target = ALL[name]
    for number, seed in enumerate((*target.seeds(), *NASTY, *cut(target.seeds()))):
        (corpus / str(number)).write_bytes(seed)
    limits = [f"-max_total_time={seconds:.0f}", f"-max_len={MAX_BYTES}", f"-rss_limit_mb={MEMORY_MIB}"]
    limits += [f"-timeout={INPUT_S}", f"-artifact_prefix={folder}/fault-", "-print_final_stats=1"]
    command = [sys.executable, __file__, name, "--child", str(corpus), *limits]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    for line in done.stderr.splitlines():
        if line.startswith("stat::number_of_executed_units:"):
            print(
                json.dumps({"target": name, "with": "atheris", "inputs": int(line.split(":")[-1]), "seconds": seconds})
            )
    if done.returncode:
        print(done.stderr[-4000:], file=sys.stderr)
        print(f"{name}: a fault; what did it lies in {folder}", file=sys.stderr)
    return done.returncode


def child(name: str, arguments: list[str]) -> None:
    target = ALL[name]
    atheris.Setup([sys.argv[0], *arguments], lambda data: attempt(target, data))
    atheris.Fuzz()


def with_hypothesis(name: str, seconds: float, folder: Path) -> int:
    from hypothesis import HealthCheck, Phase, given, settings

    target = ALL[name]
    deadline = time.monotonic() + seconds
    count = 0

    @settings(max_examples=1000, deadline=None, database=None, suppress_health_check=list(HealthCheck),
              phases=(Phase.generate, Phase.shrink))  # fmt: skip
    @given(hostile(target.seeds()))
    def some(data: bytes) -> None:
        nonlocal count
        count += 1
        began = time.monotonic()
        try:
            attempt(target, data[:MAX_BYTES])
        except Exception:
            (folder / "fault").write_bytes(data)
            raise
        assert time.monotonic() - began < INPUT_S, "it takes too long"

    try:
        while time.monotonic() < deadline:
            some()
    except Exception as error:
        print(f"{name}: {error!r}; what did it lies in {folder}/fault", file=sys.stderr)
        return 1
    print(json.dumps({"target": name, "with": "hypothesis", "inputs": count, "seconds": seconds}))
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/fuzz", description=__doc__)
    parser.add_argument("name", help=f"one of {len(ALL)} targets, or all, or list")
    parser.add_argument("--seconds", type=float, default=60.0, help="for each target")
    given = parser.parse_args()
    if given.name == "list":
        print("\n".join(ALL))
        return 0
    if given.name != "all" and given.name not in ALL:
        parser.error(f"there is no target {given.name!r}; see scripts/fuzz list")
    guided = importlib.util.find_spec("atheris") is not None
    print(f"with {'atheris' if guided else 'hypothesis: atheris is not installed'}", file=sys.stderr)
    failed = 0
    for name in ALL if given.name == "all" else [given.name]:
        folder = Path(tempfile.mkdtemp(prefix="tallymesh-fuzz-"))
        failed |= (with_atheris if guided else with_hypothesis)(name, given.seconds, folder)
    return failed


if __name__ == "__main__":
    if CHILD:
        os.environ.setdefault("PYTHONHASHSEED", "0")
        child(sys.argv[1], sys.argv[3:])
    else:
        sys.exit(main())
