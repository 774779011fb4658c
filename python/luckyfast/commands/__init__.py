"""The commands of the command line: each module adds some, and runs them through the library."""
