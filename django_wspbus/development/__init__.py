"""What `runbus` does for a developer: the launcher, the reload, the warm spare, the error page."""
