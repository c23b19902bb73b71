"""`nox -s doctor`: what works on this machine and in this checkout, what does not, and what to do about it.

Each `check_*` module checks one subject. The doctor changes nothing, and shows no value that could be secret.
"""
