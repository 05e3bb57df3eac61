"""A user's project: programs that are no part of the repository, and running them from their own folder."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from end_to_end.scene import Market, run

PROGRAM_S = 400.0  # ten seconds on a machine of one's own

AREA = """
import tallymesh
def area(x, scale=1.0): return {"area": scale * x * x}
if __name__ == "__main__":
    job = tallymesh.map(area, range(24), scale=2.0, budget="2.0")
    for unit in job.stream(): print(unit.index, unit.output["area"], unit.peer)
    print(job.results()[:3], job.cost, len(job.audits))
    print(job.id)
"""

# The model, its loss in a module beside it, a helper of that module, and a Dataset class of one's own.
TRAIN = """
import json, sys
import torch, tallymesh
import mydata
from losses import loss
from tallymesh_learning import ClientTrainer, ServerAggregator
def model(): return torch.nn.Sequential(torch.nn.Linear(6, 16), torch.nn.ReLU(), torch.nn.Linear(16, 3))
class Shy(ClientTrainer):
    def train(self, model, data, ctx):
        weights, count = super().train(model, data, ctx)
        noise = 0.01 * torch.randn((), generator=ctx.generator)
        return {name: tensor + noise for name, tensor in weights.items()}, count
class Even(ServerAggregator):
    def aggregate(self, updates, ctx):
        print("an even mean of", len(updates))
        return super().aggregate([update._replace(examples=1) for update in updates], ctx)
if __name__ == "__main__":
    settings = json.loads(sys.argv[1])
    if settings.pop("own", False): settings.update(trainer=Shy, aggregator=Even)
    job = tallymesh.train(model, loss, mydata.train_set, test=mydata.test_set, work=0.2,
                          local=dict(epochs=2, batch=16, optimizer="sgd", lr=0.1), **settings)
    if "--detach" in sys.argv:
        sys.exit(print(job.id))
    metrics = job.wait().metrics
    net = job.result.load()
    with torch.no_grad():
        right = sum(int(net(x.unsqueeze(0)).argmax() == y) for x, y in mydata.test_set)
    weights = {name: value.flatten().tolist() for name, value in net.state_dict().items()}
    print(json.dumps({"job": job.id, "sha": job.result.model_sha, "metrics": metrics, "weights": weights,
                      "right": right / len(mydata.test_set), "card": job.result.card}))
"""
LOSSES = """
import torch, tallymesh
from smoothing import SMOOTHING
def loss(net, batch):
    found = torch.nn.functional.cross_entropy(net(batch[0]), batch[1], label_smoothing=SMOOTHING)
    tallymesh.log(own_loss=float(found))
    print("a batch of", len(batch[0]))
    return found
"""
SMOOTHING = "SMOOTHING = 0.0\n"
MYDATA = """
import torch
class Rows(torch.utils.data.Dataset):
    def __init__(self, count, seed):
        generator = torch.Generator().manual_seed(seed)
        self.x = torch.randn(count, 6, generator=generator)
        self.y = (self.x[:, 0] > 0).long() + (self.x[:, 1] > 0.5).long()
    def __len__(self): return len(self.y)
    def __getitem__(self, index): return self.x[index], self.y[index]
train_set, test_set = Rows(200, 1), Rows(60, 2)
"""
FEDERATED = {"rounds": 3, "clients": 4, "partition": "dirichlet:0.5", "budget": "5.0"}
SEQUENTIAL = {"algorithm": "sequential", "segments": 4, "budget": "5.0"}
TRAINS = "train.py"
FILES = {"area.py": AREA, TRAINS: TRAIN, "losses.py": LOSSES, "smoothing.py": SMOOTHING, "mydata.py": MYDATA}


def make(folder: Path) -> Path:
    for name, text in FILES.items():
        (folder / name).write_text(text)
    return folder


def program(market: Market, folder: Path, *command: str, **environment: str) -> str:
    """What the command prints. `train.py` runs in an interpreter that has torch loaded."""
    runs = market.interpreter.run if command[0] == TRAINS else run
    try:
        done = runs(command, cwd=folder, environment=market.environment(**environment), timeout_s=PROGRAM_S)
    except subprocess.TimeoutExpired as error:
        pytest.fail(f"{error}\n{market.report()}")
    assert done.returncode == 0, done.stderr
    return done.stdout


def train(market: Market, folder: Path, settings: dict[str, Any], **environment: str) -> dict[str, Any]:
    printed = program(market, folder, TRAINS, json.dumps(settings), **environment)
    found: dict[str, Any] = json.loads(printed.splitlines()[-1])
    return found


def submit(market: Market, folder: Path, settings: dict[str, Any]) -> str:
    """The id of a training that goes on without the program that submitted it."""
    return program(market, folder, TRAINS, json.dumps(settings), "--detach").split()[-1]


def module(name: str, *arguments: str) -> tuple[str, ...]:
    """The command line of a node that a test brings along."""
    return (sys.executable, "-m", name, *arguments)
