"""`nox -s doctor`: what works on this machine and in this checkout, what does not, and what to do about it.

Each `check_*` module looks at one subject and returns findings. Nothing is changed, everything that is asked has a
time limit, and no value that could be secret is shown. Docker and Compose are asked through their command; which server
the tests will take is asked of `freshpg`, as the tests do.
"""
