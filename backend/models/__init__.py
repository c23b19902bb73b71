"""The ORM models."""
