"""The contract of Fn's kits of today: HTTP over a socket that the function listens on."""
