"""When a function gets another hot container: a policy decides, the launcher acts."""
