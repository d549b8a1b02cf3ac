"""A Functions host for development: the real runtime library, in one process, without .NET."""
