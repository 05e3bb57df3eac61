"""Wallet files: never overwritten, never readable by others, every wrong input named."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from eth_account import Account
from eth_keyfile import decode_keyfile_json

from tallymesh.errors import CallerError, LocalError
from tallymesh_ledger import keystore, sealing
from tallymesh_ledger.keys import AccountKey

pytestmark = pytest.mark.slow  # real processes: run by scripts/test, not by plain pytest


# geth's own test vector: pbkdf2, so that reading it takes no memory (Web3 Secret Storage definition)
GETH: dict[str, Any] = {
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
GETH_SCRYPT = {  # the definition's second example; OpenSSL's scrypt refuses its n and r
    "crypto": {
        "cipher": "aes-128-ctr",
        "cipherparams": {"iv": "83dbcc02d8ccb40e466191a123791e0e"},
        "ciphertext": "d172bf743a674da9cdad04534d56926ef8358534d458fffccd4e6ad2fbde479c",
        "kdf": "scrypt",
        "kdfparams": {
            "dklen": 32,
            "n": 262144,
            "p": 8,
            "r": 1,
            "salt": "ab0c7876052600dd703518d6fc3fe8984592145b591fc8fb5c6d43190334ba19",
        },
        "mac": "2103ac29920d71da29f15d75b4a16dbe95cfd7ff8faea1056c33131d846e3097",
    },
    "id": "3198bc9c-6672-5ab3-d995-4942343ae5b6",
    "version": 3,
}
GETH_SECRET = bytes.fromhex("7a28b5ba57c53603b0b07b56bba752f7784bf506fa95edc395f5cf6c7514fe9d")


@pytest.fixture(scope="module")
def wallet(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, AccountKey]:
    path = tmp_path_factory.mktemp("wallet") / "deep" / "key.json"
    return path, keystore.create(path, "correct horse")


def test_a_new_wallet_opens_with_its_password_and_the_memory_comes_back(wallet: tuple[Path, AccountKey]) -> None:
    path, key = wallet
    code = (
        "import sys, pathlib; from tallymesh_ledger import keystore;"
        "print(keystore.unlock(pathlib.Path(sys.argv[1]), 'correct horse').secret.hex());"
        "print(len({'eth_account', 'eth_keyfile', 'py_ecc'} & set(sys.modules)));"
        "print(*[line for line in open('/proc/self/status') if line.startswith(('VmHWM', 'VmRSS'))])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    secret, loaded, _, peak_kib, _, _, left_kib, _ = done.stdout.split()
    assert secret == key.secret.hex()
    assert loaded == "0"
    assert int(peak_kib) > 2**18, "scrypt takes 256 MiB"
    assert int(left_kib) < 100_000
    assert keystore.address_in(path) == key.address


def test_a_chosen_password_is_stretched_and_a_drawn_one_is_not(wallet: tuple[Path, AccountKey], tmp_path: Path) -> None:
    path, _ = wallet
    assert json.loads(path.read_text())["crypto"]["kdfparams"]["n"] == 2**18
    drawn = tmp_path / "drawn.json"
    key = keystore.create(drawn, "Zt0nW0qkJQ1hJmC6s6o4m2gFqZ0v7w1x", drawn=True)
    assert json.loads(drawn.read_text())["crypto"]["kdfparams"]["n"] == keystore.LIGHT_N
    assert keystore.unlock(drawn, "Zt0nW0qkJQ1hJmC6s6o4m2gFqZ0v7w1x").secret == key.secret


@pytest.mark.parametrize(
    "change",
    [
        {"n": 1 << 40},
        {"N": 1 << 40},
        {"n": 3 << 16},
        {"p": 1 << 40},
        {"n": 2, "p": 1 << 15},
        {"n": None, "N": None},
        {"n": -1},
        {"n": True},
        {"n": "262144"},
        {"r": None},
        {"dklen": 1 << 31},
        {"dklen": 0},
        None,
    ],
)
def test_a_derivation_that_is_nonsense_or_without_measure_is_refused_before_it_runs(
    wallet: tuple[Path, AccountKey], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any] | None
) -> None:
    document = json.loads(wallet[0].read_text())
    work = document["crypto"]["kdfparams"]
    document["crypto"]["kdfparams"] = None if change is None else {**work, **change}
    path = tmp_path / "other.json"
    path.write_text(json.dumps(document))
    monkeypatch.setattr(sealing, "_scrypt", None)
    with pytest.raises(CallerError) as caught:
        keystore.unlock(path, "correct horse")
    assert caught.value.code == "bad_keystore"


@pytest.mark.parametrize(
    "change",
    [{"c": 1 << 40}, {"c": 0}, {"c": True}, {"prf": "hmac-none"}, {"prf": "sha256"}, {"dklen": 64}, {"salt": 5}],
)
def test_rounds_without_measure_and_unknown_hashes_are_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    document = {**GETH, "crypto": {**GETH["crypto"], "kdfparams": {**GETH["crypto"]["kdfparams"], **change}}}
    (tmp_path / "geth.json").write_text(json.dumps(document))
    with pytest.raises(CallerError) as caught:
        keystore.unlock(tmp_path / "geth.json", "testpassword")
    assert caught.value.code == "bad_keystore"


@pytest.mark.parametrize("change", [{"cipher": "aes-256-ctr"}, {"cipherparams": {"iv": "00" * 17}}, {"mac": None}])
def test_a_cipher_that_is_not_the_formats_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    (tmp_path / "geth.json").write_text(json.dumps({**GETH, "crypto": {**GETH["crypto"], **change}}))
    with pytest.raises(CallerError) as caught:
        keystore.unlock(tmp_path / "geth.json", "testpassword")
    assert caught.value.code == "bad_keystore"


def test_too_little_memory_is_this_machines_fault(tmp_path: Path, wallet: tuple[Path, AccountKey]) -> None:
    """The program that opens a wallet lives on, and nothing is said about a password or a damaged file."""
    code = (
        "import pathlib, resource, sys, Crypto.Protocol.KDF; from tallymesh_ledger import keystore\n"
        "from tallymesh.errors import LocalError\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + 2**27, used + 2**27))\n"
        "for work in (keystore.unlock, keystore.create):\n"
        "    try: work(pathlib.Path(sys.argv[1 + (work is keystore.create)]), 'correct horse')\n"
        "    except LocalError as error: print(error.code, '256 MiB' in error.sentence)\n"
    )
    paths = [str(wallet[0]), str(tmp_path / "new.json")]
    done = subprocess.run([sys.executable, "-c", code, *paths], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["keystore True"] * 2
    assert list(tmp_path.iterdir()) == []


def test_a_wallet_is_for_its_owner_alone_and_leaves_no_draft(wallet: tuple[Path, AccountKey]) -> None:
    path, key = wallet
    assert path.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in path.parent.iterdir()] == [path.name]
    assert key.secret.hex() not in path.read_text()
    assert json.loads(path.read_text())["crypto"]["kdf"] == "scrypt"


def test_a_wrong_password_is_named_as_such(tmp_path: Path) -> None:
    (tmp_path / "geth.json").write_text(json.dumps(GETH))
    with pytest.raises(CallerError) as caught:
        keystore.import_keystore(tmp_path / "key.json", tmp_path / "geth.json", "wrong")
    assert caught.value.code == "wrong_password"
    assert not (tmp_path / "key.json").exists()


def test_a_wallet_is_never_overwritten(wallet: tuple[Path, AccountKey]) -> None:
    path, _ = wallet
    before = path.read_bytes()
    with pytest.raises(CallerError) as caught:
        keystore.create(path, "other")
    assert caught.value.code == "wallet_exists"
    with pytest.raises(CallerError):
        keystore._write(path, {"raced": True})  # one that appeared after the look
    assert path.read_bytes() == before
    assert [each.name for each in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("document", [GETH, GETH_SCRYPT], ids=["pbkdf2", "scrypt"])
def test_a_keystore_of_geth_can_be_taken_over(tmp_path: Path, document: dict[str, Any]) -> None:
    source, target = tmp_path / "geth.json", tmp_path / "key.json"
    source.write_text(json.dumps(document))
    assert keystore.import_keystore(target, source, "testpassword").secret == GETH_SECRET
    assert target.stat().st_mode & 0o777 == 0o600
    assert keystore.address_in(target) == AccountKey(GETH_SECRET).address, "the example's author left it out"
    if document is GETH:  # the other one's derivation is as slow as a wallet's
        assert keystore.export_secret(target, "testpassword") == GETH_SECRET


def test_what_a_killed_process_left_is_not_taken_for_a_wallet(tmp_path: Path) -> None:
    """In a container the next one has its id."""
    (tmp_path / f"key.json.{os.getpid()}.part").write_bytes(b"{")
    key = keystore.create(tmp_path / "key.json", "Zt0nW0qkJQ1hJmC6s6o4m2gFqZ0v7w1x", drawn=True)
    assert keystore.address_in(tmp_path / "key.json") == key.address


def test_names_in_capitals_and_a_counter_without_its_zeros_are_read(tmp_path: Path) -> None:
    """As eth-keyfile does."""
    crypto = sealing.sealed(AccountKey(GETH_SECRET), b"x", 2)["crypto"]
    derived = sealing._derived("scrypt", crypto["kdfparams"], b"x", bytes.fromhex(crypto["kdfparams"]["salt"]))
    text = sealing._ciphered(GETH_SECRET, derived, bytes(13) + b"abc")
    written = {**crypto, "ciphertext": "0x" + text.hex(), "mac": sealing._mac(derived, text).hex()}
    written["cipherparams"] = {"IV": b"abc".hex()}
    written["KDFParams"] = {name.upper(): value for name, value in written.pop("kdfparams").items()}
    document = {"version": 3, "crypto": written}
    assert decode_keyfile_json(document, b"x") == GETH_SECRET
    (tmp_path / "key.json").write_text(json.dumps(document))
    assert keystore.unlock(tmp_path / "key.json", "x").secret == GETH_SECRET


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (None, "no_wallet"),
        (b"", "bad_keystore"),
        (b"{}", "bad_keystore"),
        (b"[1]", "bad_keystore"),
        (b'{"version": 3, "crypto": 5}', "bad_keystore"),
        (b'{"version": 1, "crypto": {}}', "bad_keystore"),
        (b'{"version": 3, "crypto": {}}', "bad_keystore"),
        (b'{"version": 3, "crypto": {"kdf": "x", "cipher": "y"}}', "bad_keystore"),
        (b"x" * 100_000, "bad_keystore"),
    ],
    ids=["missing", "empty", "object", "list", "crypto", "version", "hollow", "unknown", "large"],
)
def test_what_is_no_wallet_is_named(tmp_path: Path, content: bytes | None, code: str) -> None:
    path = tmp_path / "key.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CallerError) as caught:
        keystore.unlock(path, "testpassword")
    assert caught.value.code == code
    assert str(path) in caught.value.sentence


def test_a_file_that_states_another_address_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "key.json"
    path.write_text(json.dumps({**GETH, "address": "11" * 20}))
    with pytest.raises(CallerError, match="another key"):
        keystore.unlock(path, "testpassword")


@pytest.mark.parametrize("stated", ["zz" * 20, [1]])
def test_a_file_that_states_nonsense_as_its_address_is_refused(tmp_path: Path, stated: Any) -> None:
    path = tmp_path / "geth.json"
    path.write_text(json.dumps({**GETH, "address": stated}))
    with pytest.raises(CallerError) as caught:
        keystore.unlock(path, "testpassword")
    assert caught.value.code == "bad_keystore"


def test_an_empty_password_and_a_secret_that_is_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CallerError) as caught:
        keystore.create(tmp_path / "key.json", "")
    assert caught.value.code == "no_password"
    for secret in (b"", bytes(32), b"\xff" * 32, b"\1" * 33):
        with pytest.raises(CallerError) as caught:
            keystore.import_secret(tmp_path / "key.json", secret, "password")
        assert caught.value.code == "bad_secret"
    with pytest.raises(CallerError) as caught:
        keystore.create(tmp_path / "key.json", "\udcff")
    assert caught.value.code == "no_password"
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_this_machines_fault(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LocalError):
        keystore._write(tmp_path / "file" / "key.json", {})


def test_the_password_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(keystore.PASSWORD_FILE, raising=False)
    assert keystore.password_from_environment() is None
    path = tmp_path / "password"
    monkeypatch.setenv(keystore.PASSWORD_FILE, str(path))
    for content in (None, b"", b"\nsecond line", b"\xff\xfe"):
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(CallerError) as caught:
            keystore.password_from_environment()
        assert caught.value.code == "no_password"
    path.write_text("pass word\n")
    assert keystore.password_from_environment() == "pass word"


def test_wallets_are_those_of_eth_account_both_ways(tmp_path: Path) -> None:
    """What a user exports to another program, or takes from one: the password's letters beyond ASCII, too."""
    path, theirs, password = tmp_path / "ours.json", tmp_path / "theirs.json", "pässword \N{GREEK SMALL LETTER LAMDA}"
    key = keystore.create(path, password, drawn=True)
    assert Account.decrypt(path.read_text(), password) == key.secret
    for kdf in ("scrypt", "pbkdf2"):
        theirs.write_text(json.dumps(Account.encrypt(key.secret, password, kdf=kdf, iterations=2)))
        assert keystore.unlock(theirs, password).secret == key.secret
