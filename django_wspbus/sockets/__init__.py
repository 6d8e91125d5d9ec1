"""The listening sockets of a site."""
