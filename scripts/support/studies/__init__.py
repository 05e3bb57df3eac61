"""Analysers of the contracts that are installed when they are asked for."""
