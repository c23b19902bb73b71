"""The rules and the queries. A session is an argument; whoever opened it commits."""
