"""Errors that a user can act on.

Everything that the library raises on bad input derives from :class:`MxaError`; its message names the file, row or
option and says what to do. The command line prints the message alone and exits with 1 (the job failed) or, for
:class:`ConfigError`, 2 (wrong usage). Anything else that escapes is a bug of ours and keeps its traceback.
"""


class MxaError(Exception):
    """Base of all errors that name a thing and its remedy."""


class DataError(MxaError):
    """An image, a table row or a data folder is not what it must be."""


class NotTakenError(DataError):
    """A DICOM file can be read, but is no such radiograph as a model knows; it may be forced."""


class ConfigError(MxaError):
    """An option, a configuration field or a name given by the user is wrong."""


class ArtifactError(MxaError):
    """A saved model is incomplete, damaged or of an unknown version."""
