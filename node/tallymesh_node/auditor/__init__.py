"""The auditor: called for a drawn unit, it checks the draw, runs the unit blind, commits, and says what it found."""

from tallymesh_node.auditor.service import AuditorService

__all__ = ["AuditorService"]
