"""Prove that no layer stores or shows a wrong time, on any database, even if it is in use.

The application creates its tables in a separate schema. Timestamps are written to them in every possible way, read in
every possible way, and compared with the microseconds that PostgreSQL has stored. Meanwhile sessions are changed to
other zones, and invalid values such as naive datetimes are tried at every entry. The schema is dropped at the end; if
a run is killed, the next run drops it.

The tests use the same cases, and run them one by one.
"""
