"""The histories of functions: which image each deploy gave them."""
