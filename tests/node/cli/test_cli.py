"""The command line: through typer's runner against a fake node, and as real processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

import tallymesh
from fakes.area import area
from fakes.node import ACCOUNT, FakeNode, Served, serve
from fakes.shell import CliRunner
from tallymesh import values
from tallymesh.api import OfferView, Problem
from tallymesh.client import discover
from tallymesh.errors import LocalError
from tallymesh.network import Contracts, Network, save
from tallymesh_ledger.balances import Balance, OpenEscrow
from tallymesh_ledger.embedded_chain.development import development_parameters
from tallymesh_node.cli import contributor, jobs, money, source
from tallymesh_node.cli.app import app
from tallymesh_node.local_network import LocalNetwork
from tallymesh_node.store.lock import FolderLock

ENTRY = [sys.executable, "-m", "tallymesh_node.cli"]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in list(os.environ):
        if name.startswith("TALLYMESH_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("TALLYMESH_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def served(home: Path) -> Iterator[Served]:
    with serve(FakeNode(home)) as running:
        yield running


def call(*arguments: str, code: int = 0, text: str | None = None) -> str:
    done = CliRunner().invoke(app, list(arguments), input=text)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == code, done.output
    return done.stdout if code == 0 else done.stderr or done.stdout


def call_json(*arguments: str) -> Any:
    return json.loads(call(*arguments, "--json"))


def finished_map(served: Served) -> tallymesh.Job:
    outputs = [values.encode(area(x)) for x in range(3)]
    served.payer.on_submit = lambda job_id: (
        served.payer.say(job_id, "log", line="hello", account=ACCOUNT, index=1),
        served.payer.say(job_id, "caught", account=ACCOUNT, sentence="It lied."),
        served.payer.finish_map(job_id, outputs),
    )[0]
    return tallymesh.map(area, range(3), budget="1")


# -- every command


@pytest.mark.parametrize(
    "command",
    [["ls"], ["logs"], ["why"], ["why", "--node"], ["stop", "ab"], ["result"], ["offers"], ["env"], ["node", "status"]],
    ids=" ".join,
)
def test_without_a_node_the_remedy_is_shown_and_the_code_is_1(
    command: list[str], home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert call(*command, code=1) == f"error: No node runs in {home}, which TALLYMESH_HOME names. {discover.REMEDY}\n"
    monkeypatch.delenv("TALLYMESH_HOME")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert call(*command, code=1) == f"error: No node runs on this machine. {discover.REMEDY}\n"
    assert "'tallymesh node start'" in discover.REMEDY, "who lends a machine submits nothing"
    done = CliRunner().invoke(app, [*command, "--json"])
    assert json.loads(done.stdout)["error"]["code"] == "no_node"


def test_wrong_usage_is_code_2() -> None:
    for command in (["frobnicate"], ["stop"], ["ls", "--colour"], ["up", "--workers", "many"]):
        call(*command, code=2)


@pytest.mark.slow
def test_version_answers_without_loading_anything_heavy() -> None:
    code = (
        "import sys; sys.argv = ['tallymesh', 'version', '--json']\n"
        "from tallymesh_node.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code\n"
        "print(*sys.modules)"
    )
    first, modules = subprocess.check_output([sys.executable, "-c", code], text=True).splitlines()
    assert json.loads(first)["tallymesh"] == tallymesh.__version__
    heavy = {"torch", "numpy", "trio", "libp2p", "web3", "httpx", "aiohttp", "eth_account", "sqlalchemy", "rich"}
    assert not heavy & {name.split(".")[0] for name in modules.split()}


# -- looking into jobs


def test_jobs_are_listed_followed_and_explained(served: Served) -> None:
    assert call("ls") == "no jobs yet: tallymesh run PROGRAM\n"
    job = finished_map(served)
    assert job.id[:12] in call("ls")
    assert "3/3 units" in call("ls")
    assert call_json("ls")[0]["id"] == job.id
    who = f"{ACCOUNT[:10]}…"
    assert call("logs") == f"{who} item 1 | hello\ncaught: {who}: It lied.\njob done\n"
    shown = call("logs", "--all")
    assert "status: matching\n" in shown
    assert f"unit: item 2 done by {who}\n" in shown
    assert "{" not in shown
    lines = call("logs", job.id[:60], "-f", "--all", "--json").splitlines()
    assert [json.loads(line)["kind"] for line in lines][:2] == ["status", "log"]
    assert call("why").splitlines()[1:] == [
        "  It cost <0.000000001 MESH of a budget of 1 MESH; the rest came back.",
        "  None of its 3 units was computed again.",
    ]
    why = call_json("why", job.id)
    assert (why["status"], why["reasons"], why["cost_wei"], why["audits"]["match"]) == ("done", [], "3300", 0)
    assert call("why", "ffff", code=1).startswith("error: No job begins with 'ffff'")


def test_results_are_shown_and_written(served: Served, tmp_path: Path) -> None:
    finished_map(served)
    assert call("result") == "{'area': 0.0}\n{'area': 1.0}\n{'area': 4.0}\n"
    assert call_json("result") == [{"area": 0.0}, {"area": 1.0}, {"area": 4.0}]
    call("result", "--out", str(tmp_path / "out.json"))
    assert json.loads((tmp_path / "out.json").read_text())[2] == {"area": 4.0}
    assert "# Job" in call("result", "--report")


def test_stop_cancels_and_a_running_job_has_no_result(served: Served) -> None:
    job = tallymesh.map(area, [1], budget="1")
    assert "is matching" in call("result", code=1)
    assert "(area) is matching: 0/1 units\n  Job 0001: 3 offers have too little memory.\n" in call("why")
    assert "is cancelled" in call("stop", job.id)
    assert served.payer.cancelled == [job.id]
    assert "was cancelled: 0/1 units" in call("why", job.id)
    assert "is cancelled already: nothing was left to cancel" in call("stop", job.id)


def test_the_market_is_shown_in_prices_that_people_know(served: Served) -> None:
    assert "no offers yet" in call("offers")
    offer = OfferView(
        account=ACCOUNT,
        peer_id="12D3",
        cores=4,
        memory_mib=2048,
        disk_mib=1,
        gpus="",
        cpu_score=1500,
        ask_price_wei=str(10**13),
        numeric_class="7f3a" * 16,
        provisional=False,
        staked=True,
        class_counts=True,
        expires=0,
    )
    served.node.known_offers = [offer]
    row = call("offers").splitlines()[1]
    assert row.split() == f"{ACCOUNT} 4 2.0 GiB - 1.50 0.036 MESH class 7f3a7f3a".split()
    served.node.known_offers = [msgspec.structs.replace(offer, class_counts=False)]
    assert call("offers").splitlines()[1].endswith("class 7f3a7f3a, on chain soon")
    served.node.known_offers = [offer]
    assert call_json("offers")[0]["ask_price_wei"] == str(10**13)


def test_why_the_node_gets_no_work(served: Served) -> None:
    said = call("why", "--node")
    assert "submits jobs and does not work for others: that is what it was started for" in said
    assert "tallymesh node start --roles worker,audit,submit --stake 1" in said
    served.node.problems = (Problem(code="no_sandbox", sentence="No sandbox.", remedy="Install bubblewrap."),)
    assert call_json("why", "--node")["reasons"][0] == "No sandbox. Install bubblewrap."


@pytest.mark.parametrize("code", ["paused", "off_hours", "in_use", "bad_orders"])
def test_a_machine_that_its_owner_took_back_is_not_told_that_its_offer_is_still_to_come(
    served: Served, code: str
) -> None:
    view = served.node.view()
    lent = msgspec.structs.replace(view, roles=("worker",), offer={}, problems=())
    late = "It has published no offer yet."
    assert late in jobs.node_reasons(lent)
    taken = msgspec.structs.replace(lent, problems=(Problem(code=code, sentence="Taken back.", remedy=""),))
    assert late not in jobs.node_reasons(taken)


def test_an_offer_of_one_core_is_one_core() -> None:
    one, two = (contributor._offer_line({"cores": n, "memory_mib": 1024, "ask_price": 1}) for n in (1, 2))
    assert one.startswith("1 core, ")
    assert two.startswith("2 cores, ")


def test_env_is_for_the_shell(served: Served) -> None:
    assert call("env").splitlines() == [
        f"export TALLYMESH_NODE={served.url}",
        f"export TALLYMESH_TOKEN={served.token}",
    ]


def test_node_status_and_stop(home: Path) -> None:
    with serve(FakeNode(home)) as served:
        assert ACCOUNT in call("node", "status")
        assert call_json("node", "status")["account"] == ACCOUNT
        served.node.stop = served.end  # type: ignore[method-assign]
        assert call("node", "stop") == "stopped\n"
    assert "No node" in call("node", "stop", code=1)


def test_a_start_without_a_network_file_names_the_local_networks(home: Path) -> None:
    local = home / "up" / "network.json"
    assert "tallymesh up" in call("node", "start", code=1)
    local.parent.mkdir(parents=True)
    local.touch()
    assert f"--network {local}" in call("node", "start", code=1)


def test_a_second_local_network_in_a_folder_is_refused_before_it_touches_the_first(tmp_path: Path) -> None:
    folder = tmp_path / "net"
    with FolderLock(folder):
        before = sorted(folder.iterdir())
        said = call("up", "--folder", str(folder), code=1)
        assert sorted(folder.iterdir()) == before
    assert said.startswith(f"error: Another local network (process {os.getpid()}) runs in {folder}.")
    assert "tallymesh run" in said
    assert "--folder" in said


def test_a_node_that_will_not_end_is_named(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contributor, "STOP_S", 0.2)
    assert "has not ended" in call("node", "stop", code=1)


# -- run


def script(tmp_path: Path, text: str) -> str:
    path = tmp_path / "train.py"
    path.write_text(text)
    return str(path)


def run(*arguments: str, **more: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*ENTRY, *arguments], capture_output=True, text=True, timeout=30, check=False, **more)


@pytest.mark.slow
def test_run_passes_budget_backend_and_arguments_and_returns_the_exit_code(tmp_path: Path) -> None:
    path = script(
        tmp_path,
        "import os, sys\nprint(os.environ['TALLYMESH_BUDGET'], os.environ['TALLYMESH_BACKEND'], sys.argv[1:])\n"
        "sys.exit(7)\n",
    )
    done = run("run", path, "--budget", "2.5", "--backend", "local", "--", "--epochs", "3")
    assert (done.stdout, done.returncode) == ("2.5 local ['--epochs', '3']\n", 7)
    assert run("run", script(tmp_path, "import os; os.kill(os.getpid(), 9)")).returncode == 128 + 9


def test_run_refuses_what_cannot_work(tmp_path: Path) -> None:
    assert "no file" in call("run", str(tmp_path / "gone.py"), code=1)
    path = script(tmp_path, "")
    assert "not an amount" in call("run", path, "--budget", "lots", code=1)
    assert "no backend 'lokal'" in call("run", path, "--backend", "lokal", code=1)
    assert "job.toml" in call("run", path, "--json", code=1)


@pytest.mark.slow
def test_ctrl_c_is_the_scripts_to_answer(tmp_path: Path) -> None:
    path = script(
        tmp_path,
        "import sys, time\n"
        "try: print('up', flush=True); time.sleep(30)\nexcept KeyboardInterrupt: print('detached'); sys.exit(5)\n",
    )
    child = subprocess.Popen([*ENTRY, "run", path], stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "up\n"
    os.killpg(child.pid, signal.SIGINT)  # what a terminal does
    assert child.communicate(timeout=60)[0] == "detached\n"
    assert child.returncode == 5


@pytest.mark.slow
def test_a_job_file_runs_and_speaks_json(served: Served, tmp_path: Path) -> None:
    finished_map(served)  # leaves the script of what happens
    (tmp_path / "shapes.py").write_text("def area(x, scale=1.0):\n    return scale * x * x\n")
    (tmp_path / "job.toml").write_text('map = "shapes.py:area"\ninputs = [0, 1, 2]\n')
    done = run("run", str(tmp_path / "job.toml"), "--budget", "3", "--json")
    assert json.loads(done.stdout)["outputs"] == [{"area": 0.0}, {"area": 1.0}, {"area": 4.0}]
    assert [terms.budget_wei for terms in served.payer.terms.values()] == [str(10**18), str(3 * 10**18)]
    done = run("run", str(tmp_path / "job.toml"), "--json")
    assert (done.returncode, json.loads(done.stdout)["error"]["code"]) == (1, "no_budget")


# -- money


def network(home: Path) -> Path:
    path = home / "network.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    save(Network("test", 5, ("http://127.0.0.1:1",), Contracts(*("0x" + "11" * 20,) * 3)), path)
    return path


@pytest.mark.parametrize(
    "words",
    [
        ("history", ACCOUNT),
        ("earnings", ACCOUNT),
        ("receipt", "3f2a9c01:12"),
        ("network",),
        ("index", "sync"),
        ("index", "rebuild"),
    ],
    ids=" ".join,
)
def test_that_there_is_no_network_file_is_said_before_anything_slow_is_loaded(
    home: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    monkeypatch.setitem(sys.modules, "tallymesh_ledger.index", None)  # who imports it now gets an ImportError
    done = CliRunner().invoke(app, [*words, "--json"])
    assert done.exit_code == 1
    assert json.loads(done.stdout)["error"]["code"] == "no_network"


OF_A_NETWORK = [
    ("balance", ACCOUNT), ("history", ACCOUNT), ("earnings", ACCOUNT), ("receipt", "3f2a9c01:12"), ("network",),
    ("index", "sync"), ("index", "rebuild"), ("stake", "add"), ("stake", "release"), ("withdraw",), ("rewards", "show"),
    ("rewards", "collect"),
]  # fmt: skip


def refused(*words: str) -> tuple[str, str]:
    done = CliRunner().invoke(app, [*words, "--json"])
    assert done.exit_code == 1, done.output
    error = json.loads(done.stdout)["error"]
    return error["code"], error["sentence"]


def test_commands_read_the_network_file_that_the_node_which_runs_here_was_started_with(
    home: Path, tmp_path: Path
) -> None:
    """The file is damaged, so that each command says which one it read."""
    mine, other = tmp_path / "elsewhere" / "mine.json", tmp_path / "other.json"
    mine.parent.mkdir()
    mine.write_text("{")
    other.write_text("[")
    node = FakeNode(home)
    node.network_file = mine
    with serve(node):
        for words in OF_A_NETWORK:
            code, sentence = refused(*words)
            assert (code, str(mine) in sentence) == ("bad_network", True), (words, sentence)
        network(home)
        assert str(mine) in refused("balance", ACCOUNT)[1], "another network's file in the usual place"
        assert str(other) in refused("balance", ACCOUNT, "--network", str(other))[1], "what is typed is meant"
    (home / "network.json").unlink()
    assert refused("balance", ACCOUNT)[0] == "no_network", "it has ended"


def test_balance_shows_tokens_and_json_has_wei(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def read(network: Network, rpc: str | None, accounts: list[bytes]) -> list[Balance]:
        assert rpc == "http://chain"
        escrow = OpenEscrow(job=b"\x07" * 32, free_wei=10**18, reserve_wei=5, open_seats=2)
        return [
            Balance(
                account=account, block_number=9, tokens_wei=125 * 10**16, gas_wei=1, stake_free_wei=0,
                stake_locked_wei=2, stake_unbonding_wei=0, slots=1, credits_wei=0, escrows=(escrow,),
            )
            for account in accounts
        ]  # fmt: skip

    monkeypatch.setattr(money, "_read", read)
    network(home)
    shown = call("balance", ACCOUNT, "--rpc", "http://chain")
    assert "1.25 MESH" in shown
    assert "2 open seats" in shown
    (row,) = call_json("balance", ACCOUNT, "--rpc", "http://chain")
    assert (row["tokens_wei"], row["escrows"][0]["free_wei"]) == (str(125 * 10**16), str(10**18))
    assert row["account"].lower() == ACCOUNT


@pytest.mark.parametrize("address", ["0x12", "zz" * 20, "0x5AAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"])
def test_an_address_with_a_typing_error_is_refused(home: Path, address: str) -> None:
    network(home)
    assert "bad_address" in CliRunner().invoke(app, ["balance", address, "--json"]).stdout


def test_balance_needs_a_network_and_a_chain_that_answers(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(money, "PATIENCE_S", 0.1)
    assert "no network file" in call("balance", ACCOUNT, code=1)
    network(home)
    assert call("balance", ACCOUNT, code=1).startswith("error: ")
    assert "no wallet" in call("balance", code=1)


def test_a_local_network_that_has_ended_is_named_and_how_to_start_one(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(money, "PATIENCE_S", 0.1)
    network(home / "up")
    said = call("balance", ACCOUNT, code=1)
    assert said.startswith("error: The local network has ended, and its chain with it")
    assert "'tallymesh up'" in said
    assert "has ended" not in call("balance", ACCOUNT, "--rpc", "http://127.0.0.1:1", code=1), "another chain than that"
    network(home)
    assert "has ended" not in call("balance", ACCOUNT, code=1), "a network of its own is not the local one"


def test_a_zero_beside_a_local_network_says_whose_wallet_that_is(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder, address in ((home, "11"), (home / "up" / "payer", "22")):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "wallet.json").write_text(json.dumps({"address": address * 20, "crypto": {}, "version": 3}))
    source.say_other_wallet(home, network(home))
    assert capsys.readouterr().err == "", "a network of its own"
    source.say_other_wallet(home, home / "up" / "network.json")
    assert f"the local network's jobs are paid by 0x{'22' * 20}." in capsys.readouterr().err
    (home / "wallet.json").unlink()
    source.say_other_wallet(home, home / "up" / "network.json")
    assert capsys.readouterr().err == "", "then it is that very wallet"


@pytest.mark.slow  # each opening of a keystore takes half a second, by design
def test_a_wallet_is_made_shown_exported_and_imported(home: Path, tmp_path: Path) -> None:
    assert "no wallet" in call("wallet", "show", code=1)
    password = tmp_path / "password"
    password.write_text("correct horse\n")
    address = call_json("wallet", "create", "--password-file", str(password))["address"]
    assert call_json("wallet", "show")["address"] == address
    assert "already" in call("wallet", "create", code=1)
    assert "not shown" in call("wallet", "export", "--password-file", str(password), code=1)
    secret = call("wallet", "export", "--yes", "--password-file", str(password)).strip()
    (home / "wallet.json").unlink()
    taken = call("wallet", "import", "--password-file", str(password), "--json", text=secret + "\n")
    assert json.loads(taken)["address"] == address
    (home / "wallet.json").rename(tmp_path / "geth.json")
    taken = call("wallet", "import", str(tmp_path / "geth.json"), "--password-file", str(password), "--json")
    assert json.loads(taken)["address"] == address
    wrong = tmp_path / "wrong"
    wrong.write_text("battery staple\n")
    assert "does not open" in call("wallet", "export", "--yes", "--password-file", str(wrong), code=1)
    assert "none was given" in call("wallet", "export", "--yes", code=1)


# -- a local network


@pytest.mark.parametrize(("workers", "needed"), [(1, 0), (2, 1), (3, None), (5, None)])
def test_a_local_network_of_any_size_can_run_jobs_and_finds_its_chain_again(
    home: Path, monkeypatch: pytest.MonkeyPatch, workers: int, needed: int | None
) -> None:
    asked: dict[str, Any] = {}

    def start_chain(network: LocalNetwork, **options: Any) -> None:
        asked.update(options)
        raise LocalError("enough", "No chain is needed here.")

    monkeypatch.setattr(LocalNetwork, "start_chain", start_chain)
    monkeypatch.setattr(signal, "signal", lambda number, action: None)  # the test run keeps its own Ctrl-C
    assert "enough" in CliRunner().invoke(app, ["up", "--workers", str(workers), "--json"]).stdout
    assert asked["keep"] is True, "the nodes keep their jobs, which are about this chain's contracts"
    alone = {"class_stake_bp": 0} if workers == 1 else {}  # the others of one worker have no stake at all
    assert asked["parameters"] == (None if needed is None else {"class_accounts_min": needed, **alone})
    others = development_parameters().class_accounts_min if needed is None else needed
    assert others <= workers - 1, "else every offer is rejected as of a rare class, for ever"


# -- node start, as a real process


@pytest.mark.slow
def test_a_start_that_cannot_work_is_one_line(home: Path) -> None:
    done = run("node", "start", "--network", "/nowhere.json")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: There is no network file at /nowhere.json.")
    home.mkdir(exist_ok=True)
    (home / "config.toml").write_text("cores = 1\nmemory = 3\n")
    done = run("node", "start")
    assert done.returncode == 1
    assert f"{home / 'config.toml'}, line 2: there is no key 'memory'" in done.stderr


@pytest.mark.parametrize("command", [["up"], ["node", "start"]], ids=" ".join)
def test_on_other_systems_a_node_names_the_way_and_the_client_works(
    command: list[str], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.mkdir(parents=True)
    (home / "api.json").write_text('{"url": "http://127.0.0.1:9", "token": "t", "pid": 1}')

    def interrupt(pid: int, number: int) -> None:
        pytest.fail("on Windows this interrupts the process that it asks about")

    for system in ("darwin", "win32"):
        monkeypatch.setattr(sys, "platform", system)
        if system == "win32":
            monkeypatch.setattr(os, "kill", interrupt)
        told = json.loads(CliRunner().invoke(app, [*command, "--json"]).stdout)["error"]
        assert told["code"] == "linux_only"
        assert "WSL2 or a Linux container" in told["remedy"]
        assert discover.find().url == "http://127.0.0.1:9"


@pytest.mark.slow
def test_a_typing_error_in_a_variable_is_mentioned(home: Path) -> None:
    done = run("node", "start", env={**os.environ, "TALLYMESH_CORE": "2"})
    assert "warning: nothing reads the variable TALLYMESH_CORE\n" in done.stderr
