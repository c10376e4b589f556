"""Fuzzing of what reads bytes from outside."""
