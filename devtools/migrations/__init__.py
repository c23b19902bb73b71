"""The commands that compare the models with a database and draft migrations."""

import sys
import traceback

# Each command imports the models, so this is the place to report an error in them without a traceback.
try:
    import backend.models.models  # noqa: F401  only to see whether it can be imported
except Exception as error:  # noqa: BLE001  the developer's code may raise anything
    _TRACE = traceback.extract_tb(error.__traceback__)
    _PLACES = [f"{at.filename}:{at.lineno}: " for at in _TRACE if "/backend/" in at.filename]
    sys.exit(f"The models cannot be imported: {(_PLACES or [''])[-1]}{type(error).__name__}: {error}")
