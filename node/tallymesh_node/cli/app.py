"""The commands by name. What they do is in the modules beside this one, which import lazily."""

from __future__ import annotations

import typer

from tallymesh_node.cli import (
    blobs,
    build,
    chain,
    contributor,
    deploying,
    doctor,
    history,
    jobs,
    later,
    money,
    owner,
    receipt,
    rewards,
    run,
    service,
    stake,
    various,
)
from tallymesh_node.cli.output import Group

app = typer.Typer(
    name="tallymesh",
    cls=Group,
    help="Train and map on other people's machines, with the work checked; or lend out your own.",
    epilog="Start with 'tallymesh up' (a network on this machine); then, in another terminal, 'tallymesh run PROGRAM', "
    "where PROGRAM is a script of yours or one of the project's examples/, such as examples/map_area.py.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
node = typer.Typer(cls=Group, no_args_is_help=True, rich_markup_mode=None, help="This machine's node.")
wallet = typer.Typer(cls=Group, no_args_is_help=True, rich_markup_mode=None, help="The node's wallet.")
stakes = typer.Typer(cls=Group, no_args_is_help=True, rich_markup_mode=None, help="The account's stake.")
reward = typer.Typer(cls=Group, no_args_is_help=True, rich_markup_mode=None, help="What burned fees give back.")
networks = typer.Typer(cls=Group, rich_markup_mode=None)
blob = typer.Typer(cls=Group, no_args_is_help=True, rich_markup_mode=None, help="What lies in the node's store.")
index = typer.Typer(cls=Group, no_args_is_help=True, rich_markup_mode=None, help="The index of the contracts' events.")
app.add_typer(node, name="node")
app.add_typer(wallet, name="wallet")
app.add_typer(stakes, name="stake")
app.add_typer(reward, name="rewards")
app.add_typer(networks, name="network")
app.add_typer(blob, name="blob")
app.add_typer(index, name="index")

app.command("up")(contributor.up)
node.command("start")(contributor.start)
node.command("status")(contributor.status)
node.command("stop")(contributor.stop)
node.command("pause")(owner.pause)
node.command("resume")(owner.resume)
node.command("limit")(owner.limit)
node.command("install")(service.install)

app.command("run", context_settings={"ignore_unknown_options": True})(run.run)
app.command("build", context_settings={"ignore_unknown_options": True})(build.build)
app.command("ls")(jobs.ls)
app.command("logs")(jobs.logs)
app.command("why")(jobs.why)
app.command("stop")(jobs.stop)
app.command("result")(jobs.result)
app.command("offers")(jobs.offers)

blob.command("ls")(blobs.ls)
blob.command("pin")(blobs.pin)
blob.command("unpin")(blobs.unpin)
blob.command("rm")(blobs.rm)
blob.command("gc")(blobs.gc)

app.command("balance")(money.balance)
app.command("history")(history.history)
app.command("earnings")(history.earnings)
app.command("receipt")(receipt.receipt)
app.command("withdraw")(stake.withdraw)
networks.callback(invoke_without_command=True)(chain.network)
networks.command("deploy")(deploying.deploy)
networks.command("presets")(deploying.presets)
stakes.command("add")(stake.add)
stakes.command("release")(stake.release)
reward.command("show")(rewards.show)
reward.command("collect")(rewards.collect)
index.command("sync")(chain.sync)
index.command("rebuild")(chain.rebuild)
wallet.command("show")(money.show)
wallet.command("create")(money.create)
wallet.command("export")(money.export)
wallet.command("import")(money.import_)

for _name, _help in later.COMMANDS.items():
    app.command(_name, hidden=True, context_settings=later.ANYTHING, help=_help)(later.later)

app.command("doctor")(doctor.doctor)
app.command("env")(various.env)
app.command("version")(various.version)
