"""Development: the launcher, the reload on a save, the warm spare, the error page."""
