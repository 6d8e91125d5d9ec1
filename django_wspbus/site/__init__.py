"""The site process: the plugins that the settings name, put together."""
