"""A key under a password: Web3 Secret Storage, version 3, the format of geth and eth-account.

https://ethereum.org/en/developers/docs/data-structures-and-encoding/web3-secret-storage

The ciphers are pycryptodome's, and the format is the few lines that join them. eth-keyfile has the same lines around
the same ciphers, but loads the curves of validators' keys with them: half a second of CPU, in a child process of its
own. scrypt holds a quarter of a GiB while it runs, outside of Python's lock and heap, and gives all of it back. This
module knows no files; what it is given may be a stranger's, so nothing is computed before it is known how much.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import uuid
from typing import Any

from Crypto.Cipher import AES

from tallymesh.errors import LocalError
from tallymesh_ledger.eip712 import keccak
from tallymesh_ledger.keys import AccountKey

CIPHER = "aes-128-ctr"  # the format knows no other
N, R, P = 2**18, 8, 1  # what geth and eth-account take: 0.6 s and 256 MiB a guess
DERIVED_BYTES = 32  # what every wallet derives: half encrypts, half proves the password
SCRYPT_BYTES_MAX = 1 << 30  # 128 n r p, memory and time: wallets take a quarter, and a file must not use up the machine
BLOCKS_MAX = 1 << 14  # r p: wallets have 8, and Python hashes each of them
ROUNDS_MAX = 100_000_000  # of PBKDF2, half a minute: wallets have a quarter of a million to a million
IV_BYTES = 16
SALT_BYTES = 16


class Unreadable(ValueError):
    """What is stated is no key under a password, or asks for more than a wallet's worth of work; its text says why."""


class WrongPassword(ValueError):
    """The password is not the one that it was sealed with."""


def sealed(key: AccountKey, password: bytes, n: int) -> dict[str, Any]:
    """The whole document; `n` is scrypt's cost, a power of two. LocalError `keystore` where memory is short."""
    salt, iv = secrets.token_bytes(SALT_BYTES), secrets.token_bytes(IV_BYTES)
    derived = _scrypt(password, salt, n, R, P)
    text = _ciphered(key.secret, derived, iv)
    return {
        "address": key.address.hex(),
        "crypto": {
            "cipher": CIPHER,
            "cipherparams": {"iv": iv.hex()},
            "ciphertext": text.hex(),
            "kdf": "scrypt",
            "kdfparams": {"dklen": DERIVED_BYTES, "n": n, "r": R, "p": P, "salt": salt.hex()},
            "mac": _mac(derived, text).hex(),
        },
        "id": str(uuid.uuid4()),
        "version": 3,
    }


def opened(stated: dict[Any, Any], password: bytes) -> bytes:
    """The secret in a document's part `crypto`, as somebody wrote it. Unreadable, WrongPassword; LocalError `keystore`
    where memory is short."""
    crypto = _lower(stated)
    try:
        work, iv = _lower(crypto["kdfparams"]), _hex(_lower(crypto["cipherparams"])["iv"])
        text, mac, salt = _hex(crypto["ciphertext"]), _hex(crypto["mac"]), _hex(work["salt"])
        method, cipher = crypto["kdf"], crypto["cipher"]
    except (KeyError, TypeError, ValueError) as error:
        raise Unreadable(f"it is damaged ({type(error).__name__}: {error})") from None
    if cipher != CIPHER or len(iv) > IV_BYTES:
        raise Unreadable(f"its cipher is not {CIPHER}")
    derived = _derived(method, work, password, salt)
    if not hmac.compare_digest(_mac(derived, text), mac):
        raise WrongPassword
    return _ciphered(text, derived, iv.rjust(IV_BYTES, b"\0"))  # a number, and some write it without its zeros


def _derived(method: Any, work: dict[str, Any], password: bytes, salt: bytes) -> bytes:
    stated: list[Any] = [work.get(name) for name in ("n", "r", "p", "c")]
    n, r, p, rounds = stated
    if work.get("dklen") == DERIVED_BYTES and method == "scrypt" and _counts(n, r, p) and not n & (n - 1):
        if 128 * n * r * p > SCRYPT_BYTES_MAX or r * p > BLOCKS_MAX:
            raise Unreadable(f"its key derivation asks for too much (n {n}, r {r}, p {p})")
        return _scrypt(password, salt, n, r, p)
    if work.get("dklen") == DERIVED_BYTES and method == "pbkdf2" and _counts(rounds):
        if rounds > ROUNDS_MAX:
            raise Unreadable(f"its key derivation asks for too much (c {rounds})")
        kind, _, name = str(work.get("prf")).partition("-")
        try:
            if kind == "hmac":
                return hashlib.pbkdf2_hmac(name, password, salt, rounds, DERIVED_BYTES)
        except ValueError:  # a hash that nobody knows
            pass
    raise Unreadable("its key derivation is not described")


def _scrypt(password: bytes, salt: bytes, n: int, r: int, p: int) -> bytes:
    """Not hashlib's: OpenSSL refuses numbers that the format's own example has (n 2^18 with r 1)."""
    from Crypto.Protocol.KDF import scrypt  # 20 ms; most ask a wallet for its address alone

    letters = password.decode("latin-1"), salt.decode("latin-1")  # how it takes bytes
    try:
        found: Any = scrypt(*letters, key_len=DERIVED_BYTES, N=n, r=r, p=p)
        return bytes(found)
    except (ValueError, MemoryError):  # the numbers are good: its "Error 2" is a refusal of memory
        needed = f"{128 * n * r / 2**20:.0f} MiB"
        raise LocalError("keystore", f"This machine has too little free memory for a wallet: {needed}.") from None


def _mac(derived: bytes, text: bytes) -> bytes:
    return keccak(derived[16:] + text)


def _ciphered(text: bytes, derived: bytes, iv: bytes) -> bytes:
    """AES-128 in counter mode: the same both ways."""
    return bytes(AES.new(derived[:16], AES.MODE_CTR, nonce=b"", initial_value=iv).encrypt(text))


def _lower(part: dict[Any, Any]) -> dict[str, Any]:
    """Names in small letters: some programs wrote `KDFParams`. TypeError for what has no names."""
    if not isinstance(part, dict):
        raise TypeError("it has no fields")
    return {str(name).lower(): value for name, value in part.items()}


def _hex(text: Any) -> bytes:
    if not isinstance(text, str):
        raise TypeError("it is no hex")
    return bytes.fromhex(text.removeprefix("0x"))


def _counts(*numbers: object) -> bool:
    return all(type(number) is int and number > 0 for number in numbers)
