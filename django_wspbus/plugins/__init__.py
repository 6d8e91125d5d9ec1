"""The plugins of a process. Each is one file, and works on a bare bus, too."""
