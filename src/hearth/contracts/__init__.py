"""The ways in which a call reaches a function and its answer comes back: one contract per format."""

from hearth.contracts.formats import contract_for

__all__ = ["contract_for"]
