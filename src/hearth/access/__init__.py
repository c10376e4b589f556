"""The stored world, as its users see it."""
