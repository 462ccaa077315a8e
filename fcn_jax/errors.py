"""The one exception for what a user's input can cause."""


class UserError(Exception):
    """A mistake in the input that one sentence explains and the user can mend.

    The sentence names the thing, the value found, the value wanted and the remedy.
    The ``run_*.py`` scripts print it without a traceback and exit with code 1.
    """
