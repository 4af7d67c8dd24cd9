"""From what people have on disk to a cohort: a table, and what its labels mean."""

from __future__ import annotations

from .cohort import FORMATS as FORMATS
from .cohort import import_cohort as import_cohort
from .folders import import_folders as import_folders
