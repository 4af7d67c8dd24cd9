"""What every job of a study needs, imported once by the server that jobs are forked from."""

from .. import evaluate, experiment, train  # noqa: F401
from ..deploy import model, segment  # noqa: F401
from ..methods import erm  # noqa: F401
