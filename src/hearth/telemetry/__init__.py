"""Logs, metrics and traces: small verbs that everybody may call."""
