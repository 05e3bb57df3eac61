"""The contracts once more, in plain Python: written from contracts/src/interfaces, never from what implements them.

It judges the real contracts (scripts/differential calls both with the same arguments and compares all that can be
seen) and is the chain of all other tests. It knows no chain, no transport and no key: who calls, when, and in which
block are given.
"""
