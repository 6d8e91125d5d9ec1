"""The fleet: all sites that share an engine, the messages between them, and their leader."""
