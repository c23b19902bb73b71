"""Domain errors, and the error that the user of a command has to fix.

`backend.routers.error_handlers` maps each domain error to an HTTP response.
"""


class UserError(Exception):
    """A mistake in the configuration or in the use of a command; its text says in one or two lines what to do.

    Commands catch it in one place, print the text and exit with code 1.
    """


class DomainError(Exception):
    """Base class; its text is a sentence for the client. Raise one of the classes below."""


class NotFoundError(DomainError):
    """The company has no row with this key. The error is the same if the row belongs to another company."""

    def __init__(self, kind: str, key: int | None = None) -> None:
        name = kind.capitalize()
        super().__init__(f"{name} not found." if key is None else f"{name} {key} not found.")


class EmailTakenError(DomainError):
    """A user of any company has this email, regardless of case."""

    def __init__(self) -> None:
        super().__init__("A user with this email already exists (case-insensitive).")


class SettingsExistError(DomainError):
    """The user already has settings."""

    def __init__(self) -> None:
        super().__init__("This user already has settings; change them with PATCH.")


class StaleVersionError(DomainError):
    """The row has changed since the version that the change is based on."""

    def __init__(self) -> None:
        super().__init__(
            "Somebody else has changed this since you read it. Read it again and send its version."
        )


class RefusedValueError(DomainError):
    """A value that the schemas accept violates a CHECK constraint of the database."""

    def __init__(self, constraint: str | None) -> None:
        super().__init__(f"The value violates the constraint {constraint}.")
