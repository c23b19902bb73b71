"""Back up and restore a database, and upgrade data to the next major version of PostgreSQL.

A backup is a file of `pg_dump --format=custom`, so plain `pg_restore` reads it. A restore never overwrites a database:
it fills a new one next to the old one and then renames both. An upgrade makes new data next to the old data. The old
database and the old data are kept until `--drop-old`.
"""
