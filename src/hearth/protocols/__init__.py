"""What one call looks like as bytes to and from a function. No I/O: bytes in, events out."""

from hearth.protocols.formats import protocol_for

__all__ = ["protocol_for"]
