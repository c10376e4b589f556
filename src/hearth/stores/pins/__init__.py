"""The pins of functions: what their images stand for."""
