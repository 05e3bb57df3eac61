"""Decides: matching, leases, placing. Pure: values, `now` and a seed in, plans and reasons out."""
