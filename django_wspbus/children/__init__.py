"""The processes that a site starts: how they are spawned, supervised and ended."""
