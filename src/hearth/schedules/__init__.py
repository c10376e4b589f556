"""Calls functions at the times that their schedules name."""
