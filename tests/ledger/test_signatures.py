"""Signatures have one form: whoever passes one on cannot make another one of it that is as good."""

from __future__ import annotations

import pytest

from tallymesh_ledger.keys import AccountKey, recover

ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
KEY = AccountKey((7).to_bytes(32, "big"))
DIGEST = b"\x05" * 32


def test_the_other_signature_of_the_same_words_is_refused() -> None:
    signature = KEY.sign_digest(DIGEST)
    assert recover(DIGEST, signature) == KEY.address
    low = int.from_bytes(signature[32:64], "big")
    other = signature[:32] + (ORDER - low).to_bytes(32, "big") + bytes([55 - signature[64]])
    with pytest.raises(ValueError, match="malleable"):
        recover(DIGEST, other)


@pytest.mark.parametrize("spoilt", ["short", "long", "v of 0", "v of 29"])
def test_a_signature_of_another_form_is_refused(spoilt: str) -> None:
    signature = KEY.sign_digest(DIGEST)
    bad = {
        "short": signature[:64], "long": signature + b"\x00", "v of 0": signature[:64] + bytes([signature[64] - 27]),
        "v of 29": signature[:64] + b"\x1d",
    }[spoilt]  # fmt: skip
    with pytest.raises(ValueError, match="not a 65-byte signature"):
        recover(DIGEST, bad)
