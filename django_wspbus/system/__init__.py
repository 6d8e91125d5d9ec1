"""What the operating system gives a process: its terminal, its standard streams, its users."""
