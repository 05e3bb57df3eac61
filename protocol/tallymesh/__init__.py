"""Tallymesh: train and map on other people's machines, with the work checked."""

from tallymesh.errors import CallerError, ChainError, LocalError, RemoteError, TallymeshError

__version__ = "0.1.0"
__all__ = ["CallerError", "ChainError", "LocalError", "RemoteError", "TallymeshError", "__version__"]
