"""The only place where concrete classes meet: what exists in a node, in which order it starts and stops."""

from hearth.nodes.build import open_node
from hearth.nodes.node import Node
from hearth.nodes.options import Options
from hearth.nodes.serving import serve

__all__ = ["Node", "Options", "open_node", "serve"]
