"""The only place where concrete classes meet: what exists in a node, in which order it starts and stops."""

from hearth.nodes.node import Node
from hearth.nodes.serving import serve

__all__ = ["Node", "serve"]
