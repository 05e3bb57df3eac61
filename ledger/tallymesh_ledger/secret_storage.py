"""One account's secret under a password, in the format that Ethereum's wallets share: Web3 Secret Storage, version 3
(https://ethereum.org/developers/docs/data-structures-and-encoding/web3-secret-storage/).

Written on the derivations and AES alone. eth-account does the same and takes half a second to import, which every node
paid at every start; tests hold the two against each other, both ways. This module knows no files and no processes.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import uuid
from typing import Any, Final

from Crypto.Cipher import AES
from Crypto.Protocol.KDF import scrypt

from tallymesh_ledger.eip712 import keccak
from tallymesh_ledger.keys import AccountKey

STANDARD_N: Final = 1 << 18  # scrypt's cost as wallets use it: 256 MiB and half a second a guess
BLOCK_R: Final = 8
PARALLEL_P: Final = 1
KEY_BYTES: Final = 32  # derived: 16 for the cipher, 16 for the check value
KEY_BYTES_MAX: Final = 64  # some wallets derive more and use the first 32
SECRET_BYTES: Final = 32
SCRYPT_BYTES_MAX: Final = 1 << 30  # times p; wallets take a quarter of it, and a file must not use up the machine
PBKDF2_ROUNDS_MAX: Final = 1 << 26  # half a minute; wallets use up to a million


class WrongPassword(ValueError):
    """The check value does not fit: another password, or another ciphertext."""


class Damaged(ValueError):
    """The document is not one of version 3 that this module can open; the text says why."""


def encrypt(key: AccountKey, password: str, *, n: int = STANDARD_N) -> dict[str, Any]:
    """The document, of values that JSON has. `n` is scrypt's cost: a power of two, memory 1 KiB times n."""
    salt, iv = secrets.token_bytes(16), secrets.token_bytes(16)
    work = {"dklen": KEY_BYTES, "n": n, "r": BLOCK_R, "p": PARALLEL_P, "salt": salt.hex()}
    derived = _scrypt(work, password)
    ciphertext = _cipher(derived, iv).encrypt(key.secret)
    return {
        "address": key.address.hex(),
        "crypto": {
            "cipher": "aes-128-ctr",
            "cipherparams": {"iv": iv.hex()},
            "ciphertext": ciphertext.hex(),
            "kdf": "scrypt",
            "kdfparams": work,
            "mac": _check_value(derived, ciphertext).hex(),
        },
        "id": str(uuid.uuid4()),
        "version": 3,
    }


def decrypt(document: dict[str, Any], password: str) -> bytes:
    """The secret, 32 bytes. WrongPassword, Damaged; MemoryError where scrypt's does not fit into this machine's."""
    try:
        crypto = document["crypto"]
        if document["version"] != 3 or crypto["cipher"] != "aes-128-ctr":
            raise Damaged(f"version {document['version']} with {crypto['cipher']} is not known")
        iv, ciphertext, mac = (
            _bytes(text) for text in (crypto["cipherparams"]["iv"], crypto["ciphertext"], crypto["mac"])
        )
        derive = _DERIVATIONS.get(crypto["kdf"])
        if derive is None:
            raise Damaged(f"the key derivation {crypto['kdf']} is not known")
        if len(iv) != AES.block_size or not 0 < len(ciphertext) <= SECRET_BYTES:
            raise Damaged(f"it holds {len(ciphertext)} bytes with an iv of {len(iv)}")
        derived = derive(crypto["kdfparams"], password)
        if not hmac.compare_digest(_check_value(derived, ciphertext), mac):
            raise WrongPassword("the check value does not fit")
        plain: bytes = _cipher(derived, iv).decrypt(ciphertext)
        return plain.rjust(SECRET_BYTES, b"\0")  # old wallets left leading zeros out
    except (WrongPassword, Damaged):
        raise
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
        raise Damaged(f"{type(error).__name__}: {error}") from None


def scrypt_bytes(document: dict[str, Any]) -> int | None:
    """Memory times parallelism that opening it takes; None where it is not scrypt's, or nonsense."""
    try:
        crypto = document["crypto"]
        work = crypto["kdfparams"]
        cost = 128 * _whole(work, "n") * _whole(work, "r") * _whole(work, "p")
        return cost if crypto["kdf"] == "scrypt" else None
    except (KeyError, TypeError, Damaged):
        return None


def _scrypt(work: dict[str, Any], password: str) -> bytes:
    n, r, p, size = (_whole(work, name) for name in ("n", "r", "p", "dklen"))
    if 128 * n * r * p > SCRYPT_BYTES_MAX:
        raise Damaged(f"its key derivation asks for too much (n {n}, r {r}, p {p})")
    # Not hashlib's: OpenSSL refuses n of 65,536 and more where r is 1, with which geth wrote wallets.
    # It takes bytes, whatever its stub says; text would become Latin-1.
    found = scrypt(password.encode(), _bytes(work["salt"]), _size(size), N=n, r=r, p=p)  # type: ignore[arg-type]
    assert isinstance(found, bytes)  # a tuple where several keys are asked for
    return found


def _pbkdf2(work: dict[str, Any], password: str) -> bytes:
    rounds, size = (_whole(work, name) for name in ("c", "dklen"))
    if work["prf"] != "hmac-sha256" or rounds > PBKDF2_ROUNDS_MAX:
        raise Damaged(f"its key derivation is {work['prf']}, {rounds} rounds")
    return hashlib.pbkdf2_hmac("sha256", password.encode(), _bytes(work["salt"]), rounds, _size(size))


_DERIVATIONS: Final = {"scrypt": _scrypt, "pbkdf2": _pbkdf2}


def _cipher(derived: bytes, iv: bytes) -> Any:
    return AES.new(derived[:16], AES.MODE_CTR, nonce=b"", initial_value=int.from_bytes(iv, "big"))


def _check_value(derived: bytes, ciphertext: bytes) -> bytes:
    return keccak(derived[16:32] + ciphertext)


def _size(size: int) -> int:
    if not KEY_BYTES <= size <= KEY_BYTES_MAX:
        raise Damaged(f"its derived key has {size} bytes")
    return size


def _whole(work: dict[str, Any], name: str) -> int:
    number = work[name]
    if type(number) is not int or number < 1:
        raise Damaged(f"{name} is {number!r}")
    return number


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text.removeprefix("0x"))
