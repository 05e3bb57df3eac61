"""A market in one process, for the tests that drive real roles."""

from __future__ import annotations

from fakes.fixtures import market, market_payer

__all__ = ["market", "market_payer"]
