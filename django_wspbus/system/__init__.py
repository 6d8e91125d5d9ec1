"""The operating system's side of a process: its terminal, standard streams, users and exit status."""
