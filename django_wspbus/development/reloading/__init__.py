"""The reloaders: what Django has, and what it lacks."""
