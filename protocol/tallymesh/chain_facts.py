"""What a client must know of a chain besides its address: coin, fees, time. A network file carries it; presets fill it.

Everything has a value that works on any chain (asked from the chain itself where it can be); a fact that is named
spares a question or mends an answer that the chain's nodes are known to give wrong.
"""

from __future__ import annotations

from typing import Literal

import msgspec


class ChainFacts(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Amounts in wei of the native coin."""

    coin: str = ""  # symbol of the native coin, which pays for gas
    fees: Literal["auto", "eip1559", "legacy"] = "auto"  # auto: EIP-1559 where blocks have a base fee
    tip_min_wei: int = 0  # per gas, where validators refuse less than their nodes suggest
    block_ms: int = 0  # usual time between blocks; 0: not known
    logs_blocks_max: int = 0  # most blocks of one eth_getLogs at the public URLs; 0: not known
    data_fee_oracle: str = ""  # contract that tells the fee for a transaction's bytes, on roll-ups that take one

    @property
    def coin_name(self) -> str:
        return self.coin or "the chain's own coin"


ANY_CHAIN = ChainFacts()  # all of it asked from the chain
