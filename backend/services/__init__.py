"""Business rules and queries. The session is an argument; the caller commits."""
