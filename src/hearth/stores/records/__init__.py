"""The records of calls, with their logs."""
