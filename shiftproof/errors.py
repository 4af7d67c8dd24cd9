"""What goes wrong with people's data and settings, as types.

Every message says what came, what was expected and what would work. The command line
prints exactly that message, without a traceback, and exits with a code other than 0;
anything else that is raised is a defect of shiftproof itself.
"""

from __future__ import annotations


class ShiftproofError(ValueError):
    """Bad input, in one line that names the case and the cure."""


class ImageError(ShiftproofError):
    """A file that cannot be read as an image, or whose values cannot be used."""


class GeometryError(ImageError):
    """Two images that should share a grid and do not."""


class LabelError(ShiftproofError):
    """A label value, or a set of classes, that has no meaning here."""


class CohortError(ShiftproofError):
    """A table that cannot serve as a cohort."""


class SplitError(ShiftproofError):
    """A division of the cohort that would leave a side empty or let a subject stand on both."""


class PlanError(ShiftproofError):
    """A preprocessing plan that does not fit the data or cannot be read."""


class OptionError(ShiftproofError):
    """An unknown name, or an option outside its range."""


class MethodError(ShiftproofError):
    """A method whose needs the data, the task or the network do not meet."""


class DivergedError(ShiftproofError):
    """Training produced a loss or a gradient that is not finite."""


class StorageError(ShiftproofError):
    """A disk that is full, read-only or gone; what was complete before is kept."""


class RunError(ShiftproofError):
    """A run or study folder that does not fit the command it is used with."""


class ModelError(ShiftproofError):
    """A model folder or file that cannot be loaded or does not fit the scans."""


class ProcessError(ShiftproofError):
    """A process that was lost, or never found, by those that compute with it."""


class OutOfMemory(ShiftproofError):
    """Work that does not fit into the machine's memory."""
