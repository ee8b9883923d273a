"""The errors a user can put right."""


class InputError(ValueError):
    """Something given to keyorbit cannot be used; the message names the thing and the remedy.

    The command line prints the message alone and exits with status 2.
    """
