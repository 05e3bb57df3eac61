"""Who holds which examples: a data set dealt out to participants, seeded, every example exactly once.

Methods: ``iid``; ``dirichlet:ALPHA`` (Hsu et al., "Measuring the Effects of Non-Identical Data Distribution", 2019);
``shard:K`` (sorted by label, K pieces each; McMahan et al., 2017); ``pathological:K`` (K labels each); ``natural`` is
given with the data and needs no dealing. This module imports no torch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy
from numpy.typing import NDArray

from tallymesh.errors import CallerError
from tallymesh.plan import derive_seed

MIN_SHARD: Final = 2  # examples: batch normalisation cannot be trained on one
METHODS: Final = "iid, dirichlet:ALPHA, shard:K, pathological:K, natural"

Rows = list[int]


class Method(NamedTuple):
    name: str
    number: float  # ALPHA or K

    @property
    def by_label(self) -> bool:
        return self.name in ("dirichlet", "shard", "pathological")


def parse(text: str) -> Method:
    """The method that a text like ``dirichlet:0.5`` names, or CallerError."""
    name, colon, number = text.partition(":")
    defaults = {"iid": 0.0, "natural": 0.0, "dirichlet": 0.5, "shard": 2.0, "pathological": 2.0}
    try:
        value = float(number) if colon else defaults[name]
        whole = name in ("shard", "pathological")
        wrong = not math.isfinite(value) or (bool(colon) and value <= 0) or (whole and value != int(value))
        if wrong or (colon and name in ("iid", "natural")):
            raise ValueError
    except (ValueError, KeyError):
        raise CallerError(
            "bad_partition", f"partition={text!r} is unknown.", remedy=f"Use one of: {METHODS}."
        ) from None
    return Method(name, value)


def deal(method: Method, examples: int, labels: Sequence[Any] | None, clients: int, seed: int) -> list[Rows]:
    """Rows of each participant, ascending. CallerError where there are too few examples, or no labels to deal by."""
    if clients < 1 or examples < clients * MIN_SHARD:
        raise CallerError(
            "too_few_examples",
            f"{examples} examples cannot be dealt to {clients} participants ({MIN_SHARD} each at least).",
            remedy="Use fewer clients." if clients > 1 else "Pass more data.",
        )
    generator = numpy.random.Generator(numpy.random.PCG64(derive_seed(seed, "partition")))
    if not method.by_label:
        hands = [list(map(int, part)) for part in numpy.array_split(generator.permutation(examples), clients)]
    else:
        if labels is None:
            raise CallerError(
                "no_labels",
                f"partition={method.name!r} deals by label, and the items have no second part that is a class.",
                remedy='Use partition="iid".',
            )
        groups = _groups(labels, generator)
        if method.name == "dirichlet":
            hands = _dirichlet(groups, clients, method.number, generator)
        elif method.name == "shard":
            hands = _shards(groups, clients, int(method.number), generator)
        else:
            hands = _pathological(groups, clients, int(method.number), generator)
    _top_up(hands)
    assert sorted(row for hand in hands for row in hand) == list(range(examples))
    return [sorted(hand) for hand in hands]


def _groups(labels: Sequence[Any], generator: numpy.random.Generator) -> list[NDArray[Any]]:
    """Rows of each class, shuffled; classes in the order of their labels."""
    _, classes = numpy.unique(numpy.asarray(labels), return_inverse=True)
    return [generator.permutation(numpy.flatnonzero(classes == each)) for each in range(int(classes.max()) + 1)]


def _dirichlet(groups: list[NDArray[Any]], clients: int, alpha: float, generator: numpy.random.Generator) -> list[Rows]:
    hands: list[Rows] = [[] for _ in range(clients)]
    for rows in groups:
        shares = numpy.cumsum(generator.dirichlet([alpha] * clients))
        cuts = numpy.round(shares[:-1] * len(rows)).astype(int)
        for hand, part in zip(hands, numpy.split(rows, cuts), strict=True):
            hand.extend(map(int, part))
    return hands


def _shards(groups: list[NDArray[Any]], clients: int, each: int, generator: numpy.random.Generator) -> list[Rows]:
    pieces = numpy.array_split(numpy.concatenate(groups), clients * each)
    order = generator.permutation(len(pieces))
    return [[int(r) for piece in order[c * each : (c + 1) * each] for r in pieces[piece]] for c in range(clients)]


def _pathological(groups: list[NDArray[Any]], clients: int, each: int, generator: numpy.random.Generator) -> list[Rows]:
    if each > len(groups) or clients * each < len(groups):
        raise CallerError(
            "bad_partition",
            f"{clients} participants with {each} labels each cannot hold {len(groups)} labels once.",
            remedy=f"Use pathological:K with K from {-(-len(groups) // clients)} to {len(groups)}.",
        )
    order = generator.permutation(len(groups))
    holders: list[list[int]] = [[] for _ in groups]
    for place in range(clients * each):
        holders[order[place % len(groups)]].append(place // each)
    hands: list[Rows] = [[] for _ in range(clients)]
    for rows, held_by in zip(groups, holders, strict=True):
        for client, part in zip(held_by, numpy.array_split(rows, len(held_by)), strict=True):
            hands[client].extend(map(int, part))
    return hands


def _top_up(hands: list[Rows]) -> None:
    """Give those with almost nothing an example of whoever has most."""
    for hand in hands:
        while len(hand) < MIN_SHARD:
            hand.append(max(hands, key=len).pop())
