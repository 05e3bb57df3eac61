"""The payer: takes jobs on, finds workers, checks their work, pays for it, and has void work done again."""

from tallymesh_node.payer.service import PayerService

__all__ = ["PayerService"]
