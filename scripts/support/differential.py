"""The command behind scripts/differential: runs episodes, reports what they covered, shrinks what diverged."""

from __future__ import annotations

import argparse
import json
import sys
import time

from judge import episode
from judge.modules import load
from judge.sides import describe

CALLS = 200_000


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=CALLS)
    parser.add_argument("--seed", default="1")
    parser.add_argument("--replay", metavar="SEED.EPISODE")
    parser.add_argument("--only", metavar="CALL,CALL,…", help="numbers of the episode's calls, from 0")
    parser.add_argument("--teeth", action="store_true")
    parser.add_argument("--all", action="store_true", help="with --teeth: every change there is, not a draw of them")
    given = parser.parse_args()
    if given.teeth:
        from judge import teeth  # needs the compiler, unlike the rest

        return teeth.main(given.all)
    if given.replay:
        only = [int(number) for number in given.only.split(",")] if given.only else None
        return replay(given.replay, only)
    return run(given.seed, given.calls)


def run(seed: str, calls: int) -> int:
    modules, tally = load(), episode.Tally()
    started, cpu = time.monotonic(), time.process_time()
    number = 0
    while tally.calls < calls:
        name = f"{seed}.{number}"
        try:
            episode.run(name, modules, {}, tally)
        except episode.Found as found:
            report(name, found, number)
            return 1
        number += 1
        if number % 50 == 0:
            print(f"{tally.calls:,} calls, no divergence", flush=True)
    seconds, cpu = time.monotonic() - started, time.process_time() - cpu
    summary(tally, number, seconds, cpu)
    bad = episode.too_many_reverts(tally)
    for line in bad:
        print(f"too many reverts: {line}")
    return 1 if bad else 0


def report(name: str, found: episode.Found, number: int) -> None:
    print(f"DIVERGED in episode {name} at call {len(found.steps) - 1}:\n{found.text}\n\nShrinking …", flush=True)
    modules = load()
    kept = episode.shrunk(name, modules, {}, found.steps)
    print(f"{len(kept)} calls are enough:")
    for i in kept:
        print(f"  {i}: {describe(found.steps[i])}")
    print(episode.diverges(name, modules, {}, [found.steps[i] for i in kept]))
    print(f"\nReplay: scripts/differential --replay {name} --only {','.join(map(str, kept))}")


def replay(name: str, only: list[int] | None) -> int:
    modules = load()
    if only is None:
        try:
            episode.run(name, modules, {}, episode.Tally())
        except episode.Found as found:
            print(f"call {len(found.steps) - 1}: {found.text}")
            return 1
        print("no divergence")
        return 0
    steps = episode.made_up(name, modules)
    for i in only:
        print(f"{i}: {describe(steps[i])}")
    text = episode.diverges(name, modules, {}, [steps[i] for i in only])
    print(text or "no divergence")
    return 1 if text else 0


def summary(tally: episode.Tally, episodes: int, seconds: float, cpu: float) -> None:
    print(f"\n{'call':34} {'made':>8} {'reverted':>9}")
    for kind, count in sorted(tally.kinds.items()):
        print(f"{kind:34} {count:8,} {tally.reverts[kind] / count:9.1%}")
    covered = len(tally.cells & episode.CELLS)
    missing = sorted(episode.CELLS - tally.cells)
    print(f"(state, call, role): {covered} of {len(episode.CELLS)}; first missing: {missing[:5]}")
    print(json.dumps({
        "calls": tally.calls,
        "episodes": episodes,
        "views_compared": tally.views,
        "divergences": 0,
        "calls_per_second": round(tally.calls / seconds),
        "calls_per_cpu_second": round(tally.calls / cpu),
        "reverted": round(sum(tally.reverts.values()) / tally.calls, 3),
        "cells_covered": covered,
        "cells": len(episode.CELLS),
    }))  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
