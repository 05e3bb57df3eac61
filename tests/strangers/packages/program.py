"""A helper of mine uses a package that workers do not have."""

import features

import tallymesh


def summary(rows):
    return features.scaled(rows).std(axis=0)


print(tallymesh.map(summary, [[[1.0, 2.0], [3.0, 4.0]]], budget="1").results())
