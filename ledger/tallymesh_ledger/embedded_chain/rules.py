"""The rules of the embedded chain: Prague's on py-evm, with two differences that no contract can see.

A block may have its parent's second, and a state knows whether the code that ran on it asked for anything of its block.
"""

from __future__ import annotations

from typing import Any, ClassVar

from eth.vm.forks import PragueVM
from eth.vm.forks.prague.computation import PragueComputation
from eth.vm.forks.prague.state import PragueState
from eth.vm.opcode import as_opcode
from eth_utils import ValidationError

OF_THE_BLOCK = (*range(0x40, 0x46), 0x48, 0x4A)  # BLOCKHASH to GASLIMIT, BASEFEE, BLOBBASEFEE


def _noting(opcode: Any) -> Any:
    def noted(computation: Any) -> None:
        computation.state.saw_block = True
        opcode(computation)

    return as_opcode(noted, opcode.mnemonic, 0)


class ClockComputation(PragueComputation):  # type: ignore[misc]
    opcodes: ClassVar = {
        **PragueComputation.opcodes,
        **{each: _noting(PragueComputation.opcodes[each]) for each in OF_THE_BLOCK},
    }


class ClockState(PragueState):  # type: ignore[misc]
    """Knows whether code asked for anything of its block: if not, only the state decides what comes out."""

    computation_class = ClockComputation
    saw_block = False


class ClockVM(PragueVM):  # type: ignore[misc]
    """Prague's rules, except that a block may have its parent's second."""

    _state_class = ClockState

    @classmethod
    def validate_header(cls, header: Any, parent_header: Any) -> None:
        if header.timestamp < parent_header.timestamp:
            raise ValidationError("a block cannot be older than its parent")
        super().validate_header(header, parent_header.copy(timestamp=header.timestamp - 1))
