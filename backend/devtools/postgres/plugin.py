"""The pytest plugin: one PostgreSQL server for the whole run, databases made from a template."""
