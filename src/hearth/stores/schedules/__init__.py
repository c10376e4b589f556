"""The schedules of apps, and the firing times that were dealt with."""
