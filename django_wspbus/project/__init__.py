"""The project's code, seen from outside: which modules are loaded, whose a file is, where an error is."""
