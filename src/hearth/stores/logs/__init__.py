"""The logs of functions, by call."""
