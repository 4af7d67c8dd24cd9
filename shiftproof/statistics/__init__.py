"""Intervals, paired tests, corrections, power: pure functions on arrays.

The unit is the subject. Whoever has several seeds, scans or structures a subject averages
them first (`per_subject`), so that no test counts a subject twice.
"""

from __future__ import annotations

from .clusters import clustered, design_effect, icc
from .corrections import (
    CORRECTIONS,
    benjamini_hochberg,
    benjamini_yekutieli,
    bonferroni,
    correct,
    holm,
    hommel,
)
from .equivalence import Equivalence, equivalence
from .exaggeration import Exaggeration, exaggeration
from .folds import FoldTest, corrected_resampled_t
from .friedman import CriticalDifference, Friedman, Pairs, friedman, nemenyi, wilcoxon_holm
from .gap import GapClosed, gap_closed
from .generalization import GeneralizationGap, generalization_gap
from .intervals import Interval, MedianInterval, interval, median_interval
from .margins import MarginShift, margin_shift, signed_margins
from .mixed import Mixed, mixed
from .paired import Comparison, paired
from .piloting import plan_from_pilot, plan_pairs
from .pilots import Pilot
from .planning import PowerPlan, plan_power
from .power import minimal_n, power, sd_of_difference, smallest_detectable, subjects_needed, wilcoxon_subjects
from .precision import Spread, half_width, spread_interval, subjects_for_half_width
from .ranks import Stability, rankings, stability
from .schemes import SCHEMES
from .signs import sign_flip_p, sign_p, signed_rank_p
from .simulated import SimulatedPower, simulated_power, simulated_power_unpaired
from .subjects import per_subject, per_training, subject_samples
from .trainings import OverTrainings, detectable_over_trainings, over_trainings
from .unpaired import Unpaired, unpaired
from .worst import Worst, worst_domain

__all__ = [
    "CORRECTIONS",
    "SCHEMES",
    "Comparison",
    "CriticalDifference",
    "Equivalence",
    "Exaggeration",
    "FoldTest",
    "Friedman",
    "GapClosed",
    "GeneralizationGap",
    "Interval",
    "MarginShift",
    "MedianInterval",
    "Mixed",
    "OverTrainings",
    "Pairs",
    "Pilot",
    "PowerPlan",
    "SimulatedPower",
    "Spread",
    "Stability",
    "Unpaired",
    "Worst",
    "benjamini_hochberg",
    "benjamini_yekutieli",
    "bonferroni",
    "clustered",
    "correct",
    "corrected_resampled_t",
    "design_effect",
    "detectable_over_trainings",
    "equivalence",
    "exaggeration",
    "friedman",
    "gap_closed",
    "generalization_gap",
    "half_width",
    "holm",
    "hommel",
    "icc",
    "interval",
    "margin_shift",
    "median_interval",
    "minimal_n",
    "mixed",
    "nemenyi",
    "over_trainings",
    "paired",
    "per_subject",
    "per_training",
    "plan_from_pilot",
    "plan_pairs",
    "plan_power",
    "power",
    "rankings",
    "sd_of_difference",
    "sign_flip_p",
    "sign_p",
    "signed_margins",
    "signed_rank_p",
    "simulated_power",
    "simulated_power_unpaired",
    "smallest_detectable",
    "spread_interval",
    "stability",
    "subject_samples",
    "subjects_for_half_width",
    "subjects_needed",
    "unpaired",
    "wilcoxon_holm",
    "wilcoxon_subjects",
    "worst_domain",
]
