"""A character LSTM over strings, one pass after another in verifiable segments, with Adam and a cosine schedule."""

import torch
from torch import nn

import tallymesh

ALPHABET = "abcdefghijklmnopqrstuvwxyz "
CODES = {letter: number for number, letter in enumerate(ALPHABET)}
WORDS = "the quick brown fox jumps over a lazy dog and runs far away into the dark wood again".split()


class Lines(torch.utils.data.Dataset):
    """(sentence, does it speak of the dog)"""

    def __len__(self):
        return 96

    def __getitem__(self, index):
        line = [WORDS[(index * 7 + step * step) % len(WORDS)] for step in range(1 + index % 5)]
        return " ".join(line), float("dog" in line)


class Reader(nn.Module):
    def __init__(self, width=12):
        super().__init__()
        self.embed = nn.Embedding(len(ALPHABET) + 1, width, padding_idx=len(ALPHABET))
        self.lstm = nn.LSTM(width, width, batch_first=True, bidirectional=True)
        self.out = nn.Linear(2 * width, 1)

    def forward(self, codes):
        states, _ = self.lstm(self.embed(codes))
        return self.out(states.amax(dim=1)).squeeze(1)


def encode(lines):
    longest = max(map(len, lines))
    rows = [[CODES[c] for c in line] + [len(ALPHABET)] * (longest - len(line)) for line in lines]
    return torch.tensor(rows)


def loss(net, batch):
    lines, answers = batch
    return nn.functional.binary_cross_entropy_with_logits(net(encode(lines)), answers.float())


job = tallymesh.train(
    Reader,
    loss,
    Lines(),
    test=Lines(),
    algorithm="sequential",
    segments=3,
    local=dict(epochs=6, batch=16, optimizer="adam", lr=0.02, schedule="cosine", clip=1.0),
    budget="2",
)
rounds = [(piece.index, round(piece.metrics["loss"], 3)) for piece in job.stream()]
print(len(rounds), "segments, the loss fell:", rounds[-1][1] < rounds[0][1])
print(job.result.load()(encode(["the dog", "a fox"])).shape)
