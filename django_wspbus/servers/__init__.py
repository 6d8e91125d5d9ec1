"""The servers, and the plugins that belong to serving: sockets, swap and drain."""
