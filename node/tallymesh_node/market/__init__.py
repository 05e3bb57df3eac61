"""Offers: how they travel, what this node knows of them, and its own."""
