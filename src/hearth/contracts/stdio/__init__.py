"""The contracts that talk over stdin and stdout: default, http and json."""
