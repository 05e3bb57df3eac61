"""Hostile input: one list of everything that takes bytes, and what is thrown at each of them."""
