"""Written for a GPU."""

import torch

import tallymesh


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 1).cuda()

    def forward(self, x):
        return self.layer(x.cuda())


def loss(net, batch):
    return ((net(batch[0]) - batch[1].cuda()) ** 2).mean()


if __name__ == "__main__":
    data = torch.utils.data.TensorDataset(torch.randn(20, 4), torch.randn(20, 1))
    tallymesh.train(Net, loss, data, rounds=1, clients=2, budget="1")
