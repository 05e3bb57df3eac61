"""Changes that no call can tell from the original, each with the reason. Whoever adds one argues it; the rest is code.

Named by the file and by the line as the change leaves it, so that an edit of the line asks the question again.
"""

from __future__ import annotations

from mutation.operators import Mutant

SAME: dict[tuple[str, str], str] = {
    (
        "Claims.sol",
        "if (bad || (!half && sound / 2 <= k && withheld * 2 > k)) return _fail(lease, id, found);",
    ): "a sample is sound or withheld or neither: where more than half are withheld, fewer than half are sound",
    (
        "Rewards.sol",
        "uint256 share = Math.mulDiv(mine, emission, IJobEscrow(escrow).burnedIn(period));",
    ): "the two factors of a product",
}


def reason(mutant: Mutant, source: bytes) -> str:
    """Empty where it is not known to be the same."""
    changed = mutant.applied(source).splitlines()
    return SAME.get((mutant.file, changed[mutant.line - 1].strip()), "")
