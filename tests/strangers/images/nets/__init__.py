from .blocks import block
from .net import SmallNet

__all__ = ["SmallNet", "block"]
