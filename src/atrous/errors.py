"""The one error that a person is shown."""


class InputError(ValueError):
    """Bad input: one line that names the file or option, what is wrong, and the fix."""
