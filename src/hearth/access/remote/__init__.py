"""The stored world of an API node, over HTTP."""
