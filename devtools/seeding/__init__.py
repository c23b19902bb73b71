"""Rows to look at and to measure with: companies, their people and all that they did, in any amount.

`nox -s db_seed` writes them to the database that the ladder finds; `-- --scale 1000` logs a million entries of usage.

- Of the same seed, scale, end and revision of the code the rows are equal to the byte, ids and times included.
- All of it is one transaction: stopped at any point, the database is as it was.
- Nobody can use what is in it: addresses are at example.com, users have no password, connections no token.

`accounts` and `activity` make the rows of the six tables from a `Plan`, in order and one at a time, so that a hundred
million take no more memory than ten; `loading` writes them by COPY.
"""
