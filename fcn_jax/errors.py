"""The exceptions that end a program without a traceback."""


class UserError(Exception):
    """A mistake in the input that one sentence explains and the user can mend.

    The sentence names the thing, the value found, the value wanted and the remedy.
    The ``run_*.py`` scripts print it without a traceback and exit with code 1.
    """


class Preempted(Exception):
    """The run was told to end (SIGTERM, or a platform's notice), and has been saved.

    ``run_train.py`` prints the message and exits with code 75.
    """
