"""The project's code, seen from outside: loaded modules, library files, threads and tracebacks."""
