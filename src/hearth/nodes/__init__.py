"""Build nodes: the only place where concrete classes meet. It decides which parts start and stop in which order."""

from hearth.nodes.build import open_node
from hearth.nodes.listening import Listener
from hearth.nodes.node import Node
from hearth.nodes.options import Options
from hearth.nodes.serving import serve

__all__ = ["Listener", "Node", "Options", "open_node", "serve"]
