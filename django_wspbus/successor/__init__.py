"""Starting successors: children, dry runs and next programs, as if the command of the site were typed again.

The modules `invocation`, `program`, `keeper` and `runner` import nothing but each other and the standard
library. A successor executes them from memory, so that it finds this package anew: by its own interpreter,
in its own release.
"""
