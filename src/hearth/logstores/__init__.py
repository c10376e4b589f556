"""What functions wrote to stderr, by call."""
