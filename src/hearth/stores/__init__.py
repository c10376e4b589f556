"""One package for each kind of thing that is kept."""
