"""Train a model of one's own on data of one's own, on other people's machines.

tallymesh up                                        # a network on this machine, in another terminal
tallymesh run examples/train_digits.py
tallymesh run examples/train_digits.py --backend local    # the same result, without a network
"""

import mydata
import torch

import tallymesh


def model():
    return torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10))


def loss(net, batch):
    return torch.nn.functional.cross_entropy(net(batch[0]), batch[1])


if __name__ == "__main__":
    job = tallymesh.train(
        model,
        loss,
        mydata.train_set,
        test=mydata.test_set,
        rounds=20,
        clients=10,
        partition="dirichlet:0.5",
        budget="5.0",
    )
    print(job.wait().metrics["accuracy"], job.result.model_sha)
    print(job.result.card)  # job.result.load() gives the nn.Module
