"""The networks of functions as processes: one namespace for each app, with a way out through a helper process."""
