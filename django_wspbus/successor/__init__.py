"""Start successors: children, dry runs and next programs, as if the command of the site were typed again.

The modules `invocation`, `program`, `keeper` and `runner` import only each other and the standard library. A
successor executes them from memory, and imports this package with its own interpreter from its own release.
"""
