"""What makes containers. Only a driver touches them."""
