"""What every job of a study needs, imported once by the server that jobs are forked from."""

import pandas  # noqa: F401
import scipy.ndimage
import scipy.spatial  # noqa: F401
import torch._dynamo  # the first optimiser imports it, which takes longer than a short training  # noqa: F401

from .. import evaluate, experiment, train  # noqa: F401
from ..deploy import model, segment  # noqa: F401
from ..losses import segmentation  # noqa: F401
from ..methods import erm  # noqa: F401
from ..metrics import segmentation as metrics  # noqa: F401
from ..nets import unet  # noqa: F401
