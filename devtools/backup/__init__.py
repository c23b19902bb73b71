"""Backups of a whole database, their restoration, and the way from one major version of PostgreSQL to the next.

A backup is one file: a zip, whose list of contents is written last, so that a file that was cut is none. In it are

- `database.dump`, as `pg_dump --format=custom` wrote it: `unzip -p FILE database.dump | pg_restore ...` needs nothing
  of ours;
- `manifest.json`: where, when and of which server and revision it was made; what belongs to the database and not to
  anything in it (its locale, settings, grants, comment); and its *figures*, which are of the very snapshot that was
  dumped.

Figures are a number of rows and a checksum for each table, for large objects, and where each sequence stood. They are
computed in SQL, of the rows' text under pinned settings, and summed up, so that the order of rows does not matter, nor
does the server's version. A restoration is believed when the figures of what was restored are the same.

Nothing is ever restored over anything. A new database is filled beside the old, verified, and takes the old one's name
by two renames in one transaction; the old one is kept under another name. The same goes for servers: an upgrade makes
new data beside the old, which take their place by one rename.
"""
