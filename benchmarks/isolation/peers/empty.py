"""No database at all: what pytest itself costs a test."""
