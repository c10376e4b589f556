"""The audit log: changes of definitions and refused requests."""
