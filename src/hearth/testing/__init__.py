"""A scripted driver for tests of applications and of Hearth."""
