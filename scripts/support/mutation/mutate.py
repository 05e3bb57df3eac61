"""The command behind scripts/mutate."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from mutation import campaign, checks
from mutation.compiler import PROJECT


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=campaign.COUNT)
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--seed", default="1")
    parser.add_argument("--results", type=Path, default=PROJECT / "cache/mutation" / campaign.RESULTS)
    parser.add_argument("--checks", action="store_true")
    parser.add_argument("--find", action="store_true")
    parser.add_argument("--programs", action="store_true")
    parser.add_argument("--only", default="", metavar="TEXT")
    given = parser.parse_args()
    if given.checks and given.find:
        return checks.find_programs(given.only) if given.programs else checks.find(given.only)
    if given.checks:
        return checks.verify(given.only)
    return campaign.run(given.results, None if given.all else given.count, given.seed)


if __name__ == "__main__":
    sys.exit(main())
