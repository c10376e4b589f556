"""One SQL database, shared by the packages that keep rows in it."""
