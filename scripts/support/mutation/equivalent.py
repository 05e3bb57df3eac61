"""Changes that no call can tell from the original, each with the reason. Whoever adds one argues it; the rest is code.

Named by the file and by the line as the change leaves it ("without" the line where it takes it out), so that an edit of
the line asks the question again.
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
    (
        "Domain.sol",
        "without _chainId = block.chainid;",
    ): "what is not kept is made anew each time: the same separator for more gas",
    (
        "HistoryRandomness.sol",
        "if (known || said.length == 32) value = abi.decode(said, (bytes32));",
    ): "the contract there answers with 32 bytes or refuses with none",
    (
        "libraries/Draws.sol",
        "if (false || numericClass != from.numericClass) return address(0);",
    ): "where nobody was drawn, the account that would be given back is zero, which means nobody",
}


def reason(mutant: Mutant, source: bytes) -> str:
    """Empty where it is not known to be the same."""
    before, after = (text.splitlines()[mutant.line - 1].strip() for text in (source.decode(), mutant.applied(source)))
    return SAME.get((mutant.file, f"without {before}" if after == "{}" else after), "")
