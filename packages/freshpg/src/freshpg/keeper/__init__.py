"""What the process that owns an embedded server runs: nothing but the standard library, and no import of its parent.

That process knows this package by the name `keeper`, for importing it by its whole name would import psycopg.
"""
