"""What can go wrong in a user's hands: one class per exit code, one sentence per error.

Library functions raise `ValueError` for a wrong argument; these classes add the exit code with which a stage or the
command line ends. The codes follow sysexits.h where it has one.
"""


class PyganError(Exception):
    """An error whose message is the one sentence a user reads; `exit_code` is what the process returns."""

    exit_code = 1


class DataError(PyganError, ValueError):
    """Pictures, labels, stores or checkpoints that cannot be used as they are."""

    exit_code = 65


class MissingInput(PyganError):
    """A file, data set or network that is not there; the message names the command that brings it."""

    exit_code = 66


class NumericalError(PyganError):
    """A loss, gradient, weight or metric that stopped being finite."""

    exit_code = 70


class CannotWrite(PyganError):
    """A disk that is full or a folder that cannot be written."""

    exit_code = 73


class TryAgain(PyganError):
    """Stopped by a signal, or the run is held by another process; the same command continues it."""

    exit_code = 75


class Stopped(TryAgain):
    """A training that a signal stopped as it was asked to; the state was saved."""


class ConfigError(PyganError, ValueError):
    """A configuration that names an unknown key, a wrong type or an impossible combination."""

    exit_code = 78
