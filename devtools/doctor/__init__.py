"""`nox -s doctor`: what works on this machine and in this checkout, what does not, and what to do about it.

Each `check_*` module looks at one subject. Nothing is changed, and no value that could be secret is shown.
"""
