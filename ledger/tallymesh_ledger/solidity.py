"""Writes the Solidity library of the signed messages from the schema, so that no field is spelled out a second time.

``python -m tallymesh_ledger.solidity messages`` prints ``contracts/src/generated/Messages.sol``, ``reader`` prints
``contracts/test/generated/Reader.sol`` (golden vectors as structs); scripts/sync_abi keeps the checked-in files equal
to them. This module does not know which contract uses which message.
"""

from __future__ import annotations

import re
import sys
from enum import IntEnum

from tallymesh import messages, schema
from tallymesh.schema import Message

_ENUMS: tuple[type[IntEnum], ...] = (messages.Auditors, messages.Result, messages.AuditReason)
_RESERVED = {"after", "at", "default", "final", "in", "match", "null", "of", "reference", "static", "switch"}  # by solc
_HEADER = """\
// SPDX-License-Identifier: Apache-2.0
// Generated from the schema of the signed messages by tallymesh_ledger.solidity. Do not edit: run scripts/sync_abi.
pragma solidity ^0.8.28;
"""


def library() -> str:
    """The whole source file: a struct, a type hash and a ``hash`` function for every message, in the schema's order."""
    structs = [_struct(message) for message in messages.ALL]
    body = [_enum(enum) for enum in _ENUMS] + [_functions(message) for message in messages.ALL]
    return "\n".join([
        _HEADER,
        *structs,
        "/// @title Type hashes and struct hashes (EIP-712 `hashStruct`) of every signed message.",
        "library Messages {",
        "\n".join(body).rstrip("\n"),
        "}\n",
    ])  # fmt: skip


def _struct(message: type[Message]) -> str:
    lines = [f"/// @notice {_notice(message)}", f"struct {message.__name__} {{"]
    lines += [f"    {abi.name} {_member(name)};" for name, abi in schema.fields(message)]
    return "\n".join([*lines, "}\n"])


def _member(name: str) -> str:
    """The struct's member; the type string keeps the schema's word, and only it and the order of fields are hashed."""
    camel = schema.camel(name)
    return f"{camel}_" if camel in _RESERVED else camel


def _notice(message: type[Message]) -> str:
    text = re.sub(r"\s+", " ", message.__doc__ or "").strip()
    return text.encode("ascii", "replace").decode()  # solc refuses other letters in comments of some kinds


def _enum(enum: type[IntEnum]) -> str:
    prefix = _constant(enum.__name__)
    return "\n".join(f"    uint8 internal constant {prefix}_{one.name} = {one.value};" for one in enum) + "\n"


def _constant(camel: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", camel).upper()


def _functions(message: type[Message]) -> str:
    name = message.__name__
    type_hash = f"{_constant(name)}_TYPEHASH"
    parts = [f"""\
    bytes32 internal constant {type_hash} = keccak256(
        "{schema.type_string(message)}"
    );
"""]  # fmt: skip
    if any(abi.name == "string" for _, abi in schema.fields(message)):
        parts.append(_function("hash", f"{name} memory m", _encode_with_text(message, type_hash)))
    else:
        # A struct of static fields is encoded in place: exactly `typeHash . encodeData`, whatever its length.
        parts.append(_function("hash", f"{name} memory m", f"abi.encode({type_hash}, m)"))
        parts.append(_from_calldata(message, type_hash))
    return "\n".join(parts)


def _function(name: str, argument: str, encoded: str) -> str:
    return f"""\
    function {name}({argument}) internal pure returns (bytes32) {{
        return keccak256({encoded});
    }}
"""


def _from_calldata(message: type[Message], type_hash: str) -> str:
    """Call data already holds the words in order.

    Bits beyond a field's type are hashed as they come, which gives another hash than that of any well-formed message;
    reading such a field reverts.
    """
    size = 32 * len(schema.fields(message))
    return f"""\
    function hashCalldata({message.__name__} calldata m) internal pure returns (bytes32 result) {{
        bytes32 typeHash = {type_hash};
        assembly ("memory-safe") {{
            let free := mload(0x40)
            mstore(free, typeHash)
            calldatacopy(add(free, 32), m, {size})
            result := keccak256(free, {size + 32})
        }}
    }}
"""


_ENCODE_AT_ONCE = 6  # arguments of one abi.encode: more of them exhaust the stack


def _encode_with_text(message: type[Message], type_hash: str) -> str:
    """Text enters by its hash, so the struct cannot be encoded in place: groups of words, joined."""
    words = [type_hash]
    for name, abi in schema.fields(message):
        field = f"m.{_member(name)}"
        words.append(f"keccak256(bytes({field}))" if abi.name == "string" else field)
    groups = [words[i : i + _ENCODE_AT_ONCE] for i in range(0, len(words), _ENCODE_AT_ONCE)]
    inner = ",\n".join(f"                abi.encode({', '.join(group)})" for group in groups)
    return f"\n            bytes.concat(\n{inner}\n            )\n        "


_PARSERS = {"bool": "Bool", "address": "Address", "bytes32": "Bytes32", "string": "String"}


def reader() -> str:
    """A library for the contracts' tests: struct hashes of the golden vectors (tests/vectors/eip712.json)."""
    names = [message.__name__ for message in messages.ALL]
    imports = ", ".join(sorted([*names, "Messages"]))
    cases = "\n".join(
        f'        if (name == keccak256("{name}")) return Messages.hash(read{name}(vm, json, at_));' for name in names
    )
    return "\n".join([
        _HEADER,
        f'import {{{imports}}} from "../../src/generated/Messages.sol";',
        'import {Vm} from "../Base.sol";\n',
        "/// @title Golden vectors as the structs of the contracts.",
        "library Reader {",
        f"    uint256 internal constant KINDS = {len(names)};",
        "    error UnknownKind(string kind);\n",
        "    /// @param at_ Path of the vector's fields in the JSON text.",
        "    function structHash(Vm vm, string memory kind, string memory json, string memory at_)",
        "        internal\n        pure\n        returns (bytes32)\n    {",
        f"        bytes32 name = keccak256(bytes(kind));\n{cases}",
        "        revert UnknownKind(kind);\n    }\n",
        "\n".join(_read(message) for message in messages.ALL).rstrip("\n"),
        "}\n",
    ])  # fmt: skip


def _read(message: type[Message]) -> str:
    name = message.__name__
    lines = []
    for field, abi in schema.fields(message):
        parsed = f'vm.parseJson{_PARSERS.get(abi.name, "Uint")}(json, string.concat(at_, ".{schema.camel(field)}"))'
        # (solc checks nothing here: a value too large for its type gives another hash, and the test fails)
        lines.append(f"        m.{_member(field)} = {f'{abi.name}({parsed})' if abi.bits else parsed};")
    body = "\n".join(lines)
    return f"""\
    function read{name}(Vm vm, string memory json, string memory at_) private pure returns ({name} memory m) {{
{body}
    }}
"""


if __name__ == "__main__":
    print({"messages": library, "reader": reader}[sys.argv[1]](), end="")
