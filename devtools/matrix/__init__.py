"""The suite on every PostgreSQL and Python that are here, and what differs between them: `nox -s tests_matrix`.

Sparse: each PostgreSQL in a container with the default Python, and the embedded one with every Python. A Docker, an
image or a Python that is not here is a row that says so and no failure (`--strict` makes it one); nothing is installed
but packages, into environments under .nox that later runs use again.
"""
