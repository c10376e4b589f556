"""What one call looks like as bytes to and from a function. No I/O: bytes in, events out."""
