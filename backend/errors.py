"""The errors of the domain, and the one that a person at the terminal has to solve.

What a domain error means to an HTTP caller stands in one table: `backend.routers.problems`.
"""


class UserError(Exception):
    """A mistake in the configuration or in a command's use; its text is one or two lines that say what to do.

    Whoever runs a command catches it once, prints the text and exits with code 1.
    """


class DomainError(Exception):
    """Base of the rules' refusals; its text is a sentence for the caller. Raise one of the classes below."""


class NotFoundError(DomainError):
    """Raised where no row has this key, or only another company's has: the two must look alike."""

    def __init__(self, kind: str, key: int | None = None) -> None:
        super().__init__(f"There is no such {kind}." if key is None else f"There is no {kind} {key} here.")


class ConflictError(DomainError):
    """Raised where a request is well formed and cannot be had as things stand; base of the two below."""


class EmailTakenError(ConflictError):
    """Raised where a user, of whichever company, has this address already, in whatever case it is written."""

    def __init__(self) -> None:
        super().__init__("The email is taken: a user has this address already, in one case or another.")


class SettingsExistError(ConflictError):
    """Raised where settings are to be created for a user who has some."""

    def __init__(self) -> None:
        super().__init__("This user has settings already: change them with PATCH.")


class StaleVersionError(ConflictError):
    """Raised where a change is based on a version that is no longer, or not yet, the row's."""

    def __init__(self) -> None:
        super().__init__("Somebody has changed this since you read it: read it again, and send its version.")


class RefusedValueError(DomainError):
    """Raised where a CHECK of the database refuses what the schemas let through."""

    def __init__(self, constraint: str | None) -> None:
        super().__init__(f"The database refuses a value, by its rule {constraint}.")
