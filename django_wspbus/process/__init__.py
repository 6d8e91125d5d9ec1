"""This process's bus, the site that it belongs to, and how the processes of a site talk."""
