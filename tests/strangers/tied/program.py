"""A small language model in bfloat16 whose embedding and output share their weights; items are int16 tokens."""

import dataclasses

import torch
from torch import nn

import tallymesh


@dataclasses.dataclass(frozen=True)
class Config:
    vocabulary: int = 32
    width: int = 16
    heads: int = 2
    context: int = 12


CONFIG = Config()


class Language(nn.Module):
    def __init__(self, config=CONFIG):
        super().__init__()
        self.tokens = nn.Embedding(config.vocabulary, config.width)
        self.places = nn.Parameter(torch.randn(config.context, config.width) * 0.02)
        self.layer = nn.TransformerEncoderLayer(config.width, config.heads, 32, dropout=0.0, batch_first=True)
        self.out = nn.Linear(config.width, config.vocabulary, bias=False)
        self.out.weight = self.tokens.weight  # tied
        mask = torch.triu(torch.ones(config.context, config.context, dtype=torch.bool), 1)
        self.register_buffer("mask", mask, persistent=False)
        self.to(torch.bfloat16)

    def forward(self, tokens):
        length = tokens.shape[1]
        hidden = self.tokens(tokens) + self.places[:length]
        return self.out(self.layer(hidden, src_mask=self.mask[:length, :length]))


def loss(net, batch):
    tokens = batch.long()
    logits = net(tokens[:, :-1])
    return nn.functional.cross_entropy(logits.flatten(0, 1).float(), tokens[:, 1:].flatten())


def main():
    start = torch.arange(48)[:, None]
    tokens = ((start + 3 * torch.arange(CONFIG.context + 1)) % CONFIG.vocabulary).to(torch.int16)
    job = tallymesh.train(
        Language,
        loss,
        list(tokens),
        rounds=2,
        clients=2,
        local=dict(optimizer="adamw", lr=0.01, batch=8, epochs=2, weight_decay=0.01),
        budget="2",
    )
    net = job.result.load()
    print(net.out.weight.dtype, "still tied:", net.out.weight is net.tokens.weight)
    print(sorted(job.metrics))


if __name__ == "__main__":
    main()
