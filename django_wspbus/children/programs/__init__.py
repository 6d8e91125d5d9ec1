"""PROCESSES: the programs and management commands that run beside the servers."""
