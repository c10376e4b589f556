"""The stored tokens of clients."""
