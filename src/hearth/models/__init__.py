"""The objects of Hearth: apps, routes, calls, their errors, ids and times. Pure: no I/O, no event loop."""
