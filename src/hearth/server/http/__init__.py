"""HTTP/1.1 for a node: one protocol class on httptools, which calls functions directly and hands the rest to ASGI."""
