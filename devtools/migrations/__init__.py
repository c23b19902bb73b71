"""The commands that compare the models with a database and draft migrations."""
