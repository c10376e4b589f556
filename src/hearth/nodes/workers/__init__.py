"""Several workers of one node on one machine: processes that share a port, a memory budget and a database."""
