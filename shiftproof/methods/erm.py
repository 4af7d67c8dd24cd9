"""ERM: all training domains pooled, one loss."""

from __future__ import annotations

from typing import ClassVar

from ..data.samples import Batch
from .method import Losses, Method, Needs, Step


class ERM(Method):
    """Empirical risk minimisation, also known as pooled training or DeepAll.

    The domains are put together and the mean loss is minimised. It is the baseline that every other method is
    compared with, under the same network, transforms and budget; with transforms it is a strong one.

    Paper: V. Vapnik, "Principles of Risk Minimization for Learning Theory", NeurIPS 1991,
    https://proceedings.neurips.cc/paper/1991/hash/ff4d5fbbafdf976cfdc032e3bde78de5-Abstract.html;
    as a baseline for unseen domains: I. Gulrajani, D. Lopez-Paz, "In Search of Lost Domain Generalization",
    ICLR 2021, https://arxiv.org/abs/2007.01434.
    """

    needs: ClassVar[Needs] = Needs()

    def losses(self, batch: Batch, step: Step) -> Losses:
        return {"task": self.error(batch.source).mean()}
