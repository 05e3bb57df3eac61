"""The wallets' file format against eth-account as judge, both ways, and against the specification's own vectors."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from eth_account import Account
from hypothesis import given, settings
from hypothesis import strategies as st

from tallymesh_ledger import secret_storage
from tallymesh_ledger.keys import AccountKey
from tallymesh_ledger.secret_storage import Damaged, WrongPassword, decrypt, encrypt

QUICK_N = 2  # what stretches a password is not what these tests are about
KEY = AccountKey(bytes.fromhex("7a28b5ba57c53603b0b07b56bba752f7784bf506fa95edc395f5cf6c7514fe9d"))
# Of the Web3 Secret Storage definition: the same key and password under both derivations.
PBKDF2 = {
    "crypto": {
        "cipher": "aes-128-ctr",
        "cipherparams": {"iv": "6087dab2f9fdbbfaddc31a909735c1e6"},
        "ciphertext": "5318b4d5bcd28de64ee5559e671353e16f075ecae9f99c7a79a38af5f869aa46",
        "kdf": "pbkdf2",
        "kdfparams": {
            "c": 262144,
            "dklen": 32,
            "prf": "hmac-sha256",
            "salt": "ae3cd4e7013836a3df6bd7241b12db061dbe2c6785853cce422d148a624ce0bd",
        },
        "mac": "517ead924a9d0dc3124507e3393d175ce3ff7c1e96529c6c555ce9e51205e9b2",
    },
    "id": "3198bc9c-6672-5ab3-d995-4942343ae5b6",
    "version": 3,
}
SCRYPT = {
    "crypto": {
        "cipher": "aes-128-ctr",
        "cipherparams": {"iv": "83dbcc02d8ccb40e466191a123791e0e"},
        "ciphertext": "d172bf743a674da9cdad04534d56926ef8358534d458fffccd4e6ad2fbde479c",
        "kdf": "scrypt",
        "kdfparams": {
            "dklen": 32,
            "n": 262144,
            "r": 1,
            "p": 8,
            "salt": "ab0c7876052600dd703518d6fc3fe8984592145b591fc8fb5c6d43190334ba19",
        },
        "mac": "2103ac29920d71da29f15d75b4a16dbe95cfd7ff8faea1056c33131d846e3097",
    },
    "id": "3198bc9c-6672-5ab3-d995-4942343ae5b6",
    "version": 3,
}
PASSWORDS = ["x", "correct horse", "Zt0nW0qkJQ1hJmC6s6o4m2gFqZ0v7w1x", "pässwörd – ключ", " \t"]


@pytest.mark.parametrize(
    "document", [pytest.param(PBKDF2, id="pbkdf2"), pytest.param(SCRYPT, id="scrypt", marks=pytest.mark.slow)]
)
def test_the_specifications_vectors_open(document: dict[str, Any]) -> None:
    assert decrypt(document, "testpassword") == KEY.secret


@pytest.mark.parametrize("password", PASSWORDS)
def test_what_is_written_here_eth_account_opens(password: str) -> None:
    document = json.loads(json.dumps(encrypt(KEY, password, n=QUICK_N)))
    assert bytes(Account.decrypt(document, password)) == KEY.secret
    assert decrypt(document, password) == KEY.secret
    assert bytes.fromhex(document["address"]) == KEY.address


@pytest.mark.parametrize("kdf", ["scrypt", "pbkdf2"])
@pytest.mark.parametrize("password", PASSWORDS)
def test_what_eth_account_writes_opens_here(password: str, kdf: Any) -> None:
    document = Account.encrypt(KEY.secret, password, kdf=kdf, iterations=QUICK_N)
    assert decrypt(document, password) == KEY.secret
    with pytest.raises(WrongPassword):
        decrypt(document, password + "x")


def test_salt_and_iv_are_drawn_anew() -> None:
    one, other = (encrypt(KEY, "x", n=QUICK_N)["crypto"] for _ in range(2))
    assert one["kdfparams"]["salt"] != other["kdfparams"]["salt"]
    assert one["cipherparams"]["iv"] != other["cipherparams"]["iv"]
    assert one["ciphertext"] != other["ciphertext"]


def test_what_opening_costs_is_known_before() -> None:
    assert secret_storage.scrypt_bytes(SCRYPT) == 128 * 2**18 * 8
    assert secret_storage.scrypt_bytes(PBKDF2) is None
    assert secret_storage.scrypt_bytes({"crypto": {"kdf": "scrypt", "kdfparams": {}}}) is None


@pytest.mark.parametrize(
    ("kdf", "change"),
    [
        ("scrypt", {"n": 1 << 40}),
        ("scrypt", {"p": 1 << 40}),
        ("scrypt", {"n": -1}),
        ("scrypt", {"n": 3}),
        ("scrypt", {"n": True}),
        ("scrypt", {"n": "262144"}),
        ("scrypt", {"dklen": 16}),
        ("scrypt", {"dklen": 1 << 30}),
        ("scrypt", {"salt": "no hex"}),
        ("scrypt", {"salt": 5}),
        ("pbkdf2", {"c": 1 << 40}),
        ("pbkdf2", {"c": 0}),
        ("pbkdf2", {"prf": "hmac-md5"}),
        ("pbkdf2", {"dklen": 1}),
    ],
)
def test_a_derivation_that_is_nonsense_or_without_measure_is_refused_at_once(kdf: str, change: dict[str, Any]) -> None:
    document = copy.deepcopy(SCRYPT if kdf == "scrypt" else PBKDF2)
    document["crypto"]["kdfparams"].update(change)  # type: ignore[index]
    with pytest.raises(Damaged):
        decrypt(document, "testpassword")


def test_every_changed_digit_of_what_is_kept_shows() -> None:
    document = encrypt(KEY, "x", n=QUICK_N)
    for name in ("ciphertext", "mac"):
        text = document["crypto"][name]
        for place in range(len(text)):
            other = f"{int(text[place], 16) ^ 1:x}"
            changed = {**document["crypto"], name: text[:place] + other + text[place + 1 :]}
            with pytest.raises(WrongPassword):
                decrypt({**document, "crypto": changed}, "x")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 64) | st.text(max_size=8),
    lambda e: st.lists(e) | st.dictionaries(st.text(max_size=4), e),
    max_leaves=5,
)
PLACES = [
    ("version",),
    ("crypto",),
    *(("crypto", name) for name in ("cipher", "cipherparams", "ciphertext", "kdf", "kdfparams", "mac")),
    ("crypto", "cipherparams", "iv"),
    *(("crypto", "kdfparams", name) for name in ("dklen", "n", "r", "p", "salt")),
]


@given(st.sampled_from(PLACES), JSON)
@settings(deadline=None)
def test_any_value_in_any_place_opens_or_is_named(place: tuple[str, ...], value: Any) -> None:
    document = encrypt(KEY, "x", n=QUICK_N)
    holder: Any = document
    for name in place[:-1]:
        holder = holder[name]
    holder[place[-1]] = value
    try:
        found = decrypt(document, "x")
    except (Damaged, WrongPassword):
        return
    assert len(found) == 32
