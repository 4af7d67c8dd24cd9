"""Who may see what. Labels of target and held-out cases are removed here, so that no code can read them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..errors import SplitError
from .cohort import Cohort
from .sampling import seeded
from .store import Case

VALIDATION_SHARE = 4
"""One of so many training subjects of a domain is a method's own validation subject."""

SEED_APART = 17


@dataclass(frozen=True)
class Split:
    """The sides of one experiment.

    Args:
        train: Labelled cases of the training domains.
        validation: Held-back subjects of the *training domains*, for selection.
        test: Held-out cases; only evaluation reads their labels.
        target: Unlabelled images of the held-out domain that adaptation may see; none of them is in `test`.
        upper: Labelled cases of the held-out domain for the target-supervised bound; none of them is in `test`.
    """

    train: Cohort
    validation: Cohort
    test: Cohort
    target: Cohort | None = None
    upper: Cohort | None = None

    def __post_init__(self) -> None:
        seen = set(self.train.subjects) | set(self.validation.subjects)
        for name, other in {"train and validation": self.validation, "train and test": self.test}.items():
            first = set(self.train.subjects) if name == "train and validation" else seen
            both = sorted(first & set(other.subjects))
            if both:
                raise SplitError(f"subjects on both sides of {name}: {', '.join(both[:5])}; a subject has one side")
        if self.target is not None and set(self.target.subjects) & set(self.test.subjects):
            raise SplitError("target images for adaptation must not be test subjects")


def hold_out(cohort: Cohort, domain: str, *, validation: float = 0.2, fraction: float = 1.0, seed: int = 0) -> Split:
    """One domain held out, the others for training.

    A fixed half of the held-out domain's subjects is the test side of *every* row; the other half gives unlabelled
    images for adaptation and labelled cases for the target-supervised bound. A `split` column is respected:
    "test" subjects of the held-out domain are then its test side, "test" subjects of training domains are used by
    nobody, and "validation" subjects of training domains select.

    Args:
        cohort: All domains.
        domain: The held-out one.
        validation: Share of each training domain's subjects that is held back for selection, at least 1.
        fraction: Share of the remaining training subjects of each domain that is used, at least 1.
        seed: Seed of the draws. The halves of the held-out domain depend on it too.

    Raises:
        SplitError: If a side would be empty.
    """
    if domain not in cohort.domains:
        raise SplitError(f'there is no domain "{domain}" to hold out; the cohort has {", ".join(cohort.domains)}')
    held = labelled(cohort.where(**{cohort.domain: domain}))
    # A subject who was scanned at the held-out domain too is no training subject anywhere.
    away = set(cohort.where(**{cohort.domain: domain}).subjects)
    rest = labelled(cohort.of_subjects([s for s in cohort.subjects if s not in away]))
    if not len(rest):
        raise SplitError(f'holding out "{domain}" leaves no labelled subject of another domain to train on')
    if "test" in marks(held):
        test = held.where(split="test")
        seen = held.of_subjects([s for s in held.subjects if s not in set(test.subjects)])
    else:
        first, second = halves(held, seed)
        seen, test = held.of_subjects(first), held.of_subjects(second)
    train, kept = inner(rest, validation, fraction, seed)
    return Split(
        train=rest.of_subjects(train),
        validation=rest.of_subjects(kept),
        test=test,
        target=seen.without_labels() if len(seen) else None,
        upper=seen if len(seen) else None,
    )


def within(split: Split, *, validation: float = 0.2, seed: int = 0) -> Split:
    """The target-supervised side: trained on the half of the held-out domain that is not tested on."""
    if split.upper is None:
        raise SplitError("the held-out domain has no subjects besides its test side to train the upper bound on")
    train, kept = divide(split.upper, validation, seed, ", ".join(split.upper.domains))
    return Split(split.upper.of_subjects(train), split.upper.of_subjects(kept), split.test)


def everything(cohort: Cohort, *, validation: float = 0.2, fraction: float = 1.0, seed: int = 0) -> Split:
    """All labelled domains for training, none held out: what a delivered model is trained on.

    Scans without a label are the unlabelled target, for methods that adapt.
    """
    known = labelled(cohort)
    train, kept = inner(known, validation, fraction, seed)
    others = cohort.of_subjects([s for s in cohort.subjects if s not in set(known.subjects)])
    return Split(
        known.of_subjects(train),
        known.of_subjects(kept),
        test=known.of_subjects([]),
        target=others.without_labels() if len(others) else None,
    )


def transfer(
    cohort: Cohort, source: Sequence[str], target: str, *, validation: float = 0.2, fraction: float = 1.0, seed: int = 0
) -> Split:
    """From the named source domains to one target; other domains are left out."""
    chosen = cohort.where(**{cohort.domain: [*source, target]})
    missing = [d for d in source if d not in chosen.domains]
    if missing or target in source:
        raise SplitError(
            f"source domains {', '.join(source)} to target {target}: "
            + (f"there is no {', '.join(missing)}" if missing else "the target must not be a source")
        )
    return hold_out(chosen, target, validation=validation, fraction=fraction, seed=seed)


def k_fold(cohort: Cohort, k: int, *, validation: float = 0.2, seed: int = 0) -> Iterator[Split]:
    """Pooled cross-validation: subjects of every domain on every side, divided within each domain."""
    cohort = labelled(cohort)
    smallest = min(len(cohort.where(**{cohort.domain: d}).subjects) for d in cohort.domains)
    if not 2 <= k <= smallest:
        raise SplitError(f"{k} folds need at least {max(k, 2)} subjects in each domain; the smallest has {smallest}")
    parts: list[list[str]] = [[] for _ in range(k)]
    for d in cohort.domains:
        for i, subject in enumerate(shuffled(cohort.where(**{cohort.domain: d}).subjects, seed)):
            if not any(subject in part for part in parts):  # scanned at an earlier domain, too
                parts[i % k].append(subject)
    for part in parts:
        rest = cohort.of_subjects([s for s in cohort.subjects if s not in set(part)])
        train, kept = inner(rest, validation, 1.0, seed)
        yield Split(rest.of_subjects(train), rest.of_subjects(kept), cohort.of_subjects(part))


def inner(cohort: Cohort, validation: float, fraction: float, seed: int) -> tuple[list[str], list[str]]:
    """Subjects to train on and held-back ones, divided within each domain."""
    train: list[str] = []
    kept: list[str] = []
    for d in cohort.domains:
        # Whoever was scanned at two domains is divided with the first.
        taken = {*train, *kept}
        own = cohort.where(**{cohort.domain: d})
        own = own.of_subjects([s for s in own.subjects if s not in taken])
        if len(own):
            some, others = divide(own, validation, seed, d)
            train += share(some, fraction, seed)
            kept += others
    return train, kept


def divide(cohort: Cohort, validation: float, seed: int, name: str) -> tuple[list[str], list[str]]:
    """Subjects of one training domain: to train on, and held back."""
    if "validation" in marks(cohort):
        kept = cohort.where(split="validation").subjects
        out = {*kept, *cohort.where(split="test").subjects}
        train = [s for s in cohort.subjects if s not in out]
    else:
        out = set(cohort.where(split="test").subjects) if "test" in marks(cohort) else set()
        subjects = shuffled([s for s in cohort.subjects if s not in out], seed)
        # A single subject trains; nobody is held back there.
        number = min(max(1, round(validation * len(subjects))), len(subjects) - 1) if validation > 0 else 0
        kept, train = subjects[:number], subjects[number:]
    if not train:
        raise SplitError(
            f'domain "{name}" has {len(cohort.subjects)} labelled subjects, of which the split column leaves none '
            "to train on; mark some as train, or leave the domain out"
        )
    return train, kept


def halves(cohort: Cohort, seed: int) -> tuple[list[str], list[str]]:
    subjects = shuffled(cohort.subjects, seed)
    if len(subjects) < 2:
        raise SplitError(
            f"held-out domain {', '.join(cohort.domains) or '(empty)'} has {len(subjects)} labelled subjects; "
            "its fixed halves (one to test on, one for adaptation and the upper bound) need at least 2"
        )
    return subjects[: len(subjects) // 2], subjects[len(subjects) // 2 :]


def share(subjects: Sequence[str], fraction: float, seed: int) -> list[str]:
    """The first part of a fixed random order, so that a smaller fraction is a part of a larger one."""
    if not 0 < fraction <= 1:
        raise SplitError(f"a fraction of the training subjects lies above 0 and up to 1, got {fraction}")
    return shuffled(subjects, seed + 1)[: max(1, round(fraction * len(subjects)))]


def shuffled(subjects: Sequence[str], seed: int) -> list[str]:
    ordered = sorted(subjects)
    return [ordered[i] for i in seeded(seed, 5).permutation(len(ordered))]


def labelled(cohort: Cohort) -> Cohort:
    """Without the scans that have no label."""
    if not cohort.label_columns:
        raise SplitError("the cohort has no column label; training and evaluation need labelled scans")
    return cohort.only_labelled()


def marks(cohort: Cohort) -> set[str]:
    """Values of the `split` column, if there is one."""
    return set(cohort.table["split"]) - {""} if "split" in cohort.table else set()


def set_apart(source: Sequence[Case], method: str) -> tuple[list[Case], list[Case]]:
    """Training cases and those that a method validates on while it trains, by subject and within each domain.

    They are taken from the training side, so that a method which learns from them has seen no more labels than the
    others; which ones does not depend on the seed of training.

    Raises:
        SplitError: If there is a single subject.
    """
    subjects: dict[str, list[str]] = {}
    for case in source:
        if not any(case.subject in seen for seen in subjects.values()):  # who was scanned twice counts once
            subjects.setdefault(case.domain, []).append(case.subject)
    chosen = {
        subject
        for domain, its_own in subjects.items()
        for subject in shuffled(its_own, SEED_APART)[: len(its_own) // VALIDATION_SHARE]
    }
    if not chosen:  # few subjects: the largest domain gives one
        most = max(subjects.values(), key=len)
        chosen = set(shuffled(most, SEED_APART)[:1]) if sum(map(len, subjects.values())) > 1 else set()
    if not chosen:
        raise SplitError(
            f"{method} validates on training subjects while it trains and needs at least 2 of them, got 1; use a "
            "larger fraction of the cohort, or another method"
        )
    return [c for c in source if c.subject not in chosen], [c for c in source if c.subject in chosen]
