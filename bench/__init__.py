"""Measurements, apart from the tests: they print ratios of one run and assert nothing."""
