"""The health of a site: the checks of its apps, and the HTTP server that answers probes."""
