"""A convolutional network with batch normalisation, from a package of helpers; items are dicts of bytes and a label."""

import digits_data
import torch
import torch.nn.functional as F
from nets import SmallNet

import tallymesh

MEAN, STD = 73.0, 90.0


def model():
    return SmallNet()


def loss(net, batch):
    images = (batch["image"].float() - MEAN) / STD
    if net.training and torch.rand(()) < 0.5:
        images = torch.roll(images, 1, dims=3)  # augmentation
    logits = net(images)
    tallymesh.log(accuracy=(logits.argmax(1) == batch["label"]).float().mean().item())
    return F.cross_entropy(logits, batch["label"])


if __name__ == "__main__":
    job = tallymesh.train(
        model,
        loss,
        digits_data.Digits(held_out=False),
        test=digits_data.Digits(held_out=True),
        rounds=1,
        clients=3,
        partition="dirichlet:1.0",
        local=dict(epochs=5, batch=32, optimizer="sgd", lr=0.05, momentum=0.9),
        budget="2",
    )
    job.wait()
    net = job.result.load()
    print(type(net).__name__, net.training, net.features[0][1].num_batches_tracked.item() > 0)
    print("better than half:", job.metrics["accuracy"] > 0.5)
