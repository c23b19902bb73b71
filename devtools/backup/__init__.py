"""Backups of a whole database, restoring them, and the way to the next major version of PostgreSQL.

A backup is what `pg_dump --format=custom` wrote: plain `pg_restore` reads it. Nothing is ever restored over anything: a
new database is filled next to the old one and takes its name by renaming, and an upgrade makes new data next to the
old. What was there before is kept until `--drop-old`.
"""
