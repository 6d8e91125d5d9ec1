"""The plugins of a process, one in each file. Each works on a bare bus as well."""
