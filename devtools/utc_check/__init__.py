"""The proof that no layer stores or shows a wrong time, on any database, also one in use.

The application creates its own tables in a schema of its own. Timestamps are written to them in every way there is,
read in every way there is, and compared with what PostgreSQL has stored, in whole microseconds. Meanwhile sessions are
moved to other zones, and naive datetimes and the like are tried at every entry. The schema is dropped at the end, and
what a killed run left, the next run drops.

The cases are also those of the tests, which run them one by one.
"""
