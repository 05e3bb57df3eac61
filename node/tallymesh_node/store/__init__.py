"""What this node must not forget: the journal and a few settings, in one SQLite file of the node's folder."""

from tallymesh_node.store.database import Database
from tallymesh_node.store.journal import SqlJournal
from tallymesh_node.store.life import Life
from tallymesh_node.store.lock import FolderLock
from tallymesh_node.store.settings import Settings

__all__ = ["Database", "FolderLock", "Life", "Settings", "SqlJournal"]
