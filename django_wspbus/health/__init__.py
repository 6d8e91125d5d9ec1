"""How a site tells that it is well: the checks of its apps, and the HTTP server of the probes."""
