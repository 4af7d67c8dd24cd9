"""Digit-sites: four sites image different handwritten digits with different machines; ten classes.

The digits are the 1797 pictures of 8 x 8 cells that scikit-learn ships, real handwriting of some 13 people; each is one
subject of one site. The imaging chains are in `digit_imaging.py`.

    site  machine                    stored   what it does to an image
    A     film densitometer          8 bit    bright digit, sharp, hardly any noise
    B     fluoroscopy                12 bit   dark digit, few photons, scatter and veil, round vignetted field
    C     ultrasound, B-mode         8 bit    dark digit in speckle that coarsens and fades with depth
    D     magnetic resonance, T2     12 bit   bright digit, turned and smaller, shading, ringing, body outline, air

Who wrote which digit is not recorded. Everybody copied one text of 130 digits, though, and the file is in order, so
that its labels show where each of 14 copies ("forms") begins. Every form is at one site, so that sites have different
writers as far as can be known (two forms may be of one hand); within a site the images of a form are several subjects
and fall on both sides of a split by subject. The column `form` lets a split be made by form.

Sizes: "2d", 320 images a site with all digits alike often; "imbalanced", 130 a site, in which the most frequent digit
is 8 times as frequent as the rarest and the order of the digits' frequencies changes from site to site.

Reproducible: the assignment of images to sites follows from the seed, and an acquisition's random numbers from the seed
and the image's number, through `SeedSequence` and PCG64; what `brain_sites.py` says of the last bit holds here, too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np

from .digit_imaging import Placing, Thing, densitometer, fluoroscopy, resonance, thing, ultrasound
from .scenario import Scan, Scenario, read_file

Array = np.ndarray

SIZES = ("2d", "imbalanced")
SUBJECTS = {"2d": 320, "imbalanced": 130}  # a site; what the three forms with the fewest of a digit hold
FORMS = (0, 130, 256, 386, 516, 646, 776, 906, 1029, 1157, 1287, 1415, 1545, 1667, 1797)  # where each begins
RATIO = 8.0  # of the most frequent digit to the rarest one in "imbalanced"
UPRIGHT = Placing()


@dataclass(frozen=True)
class Site:
    """A machine, how its subjects lie in it, and whom it sees."""

    name: str
    machine: str
    image: Callable[[Thing, np.random.Generator], Array]
    forms: int  # how many of the 14 forms it sees
    most_frequent: int  # digit in "imbalanced"; the frequency falls from there, cyclically
    bits: int
    effect: str
    placing: Placing = UPRIGHT


SITES = {
    "A": Site("A", "film densitometer", densitometer, 4, 0, 8, "bright digit, sharp, hardly any noise"),
    "B": Site("B", "fluoroscopy", fluoroscopy, 3, 5, 12, "dark digit, few photons, scatter and veil, round field"),
    "C": Site("C", "ultrasound", ultrasound, 4, 2, 8, "dark digit in speckle that coarsens and fades with depth"),
    "D": Site(
        "D",
        "magnetic resonance",
        resonance,
        3,
        7,
        12,
        "bright digit, turned and smaller; shading, ringing along the rows, body outline in air",
        Placing(turn_deg=14, shift_px=(1.0, -1.5), zoom=0.86),
    ),
}

LABELS_TOML = """\
# The target is a cell of the table: the digit that was written.
task = "classification"
kind = "multi-class"
column = "digit"
classes = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]
"""


@cache
def digits() -> tuple[Array, Array]:
    """Cells (1797, 8, 8), 0 to 16, and digits (1797,), in the file's order."""
    from sklearn.datasets import load_digits

    loaded = load_digits()
    return loaded.images, loaded.target


def form_of(image: int) -> int:
    """Which of the forms, from 0, an image is on."""
    return int(np.searchsorted(FORMS, image, side="right")) - 1


@cache
def images_of(site: str, seed: int) -> tuple[tuple[int, ...], ...]:
    """Numbers of the site's images by digit, in the order in which they become subjects."""
    random = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed])))
    forms = random.permutation(len(FORMS) - 1).tolist()
    for name, other in SITES.items():
        own, forms = forms[: other.forms], forms[other.forms :]
        if name == site:
            break
    mixed = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, ord(site), 0])))
    everyone = mixed.permutation(np.concatenate([np.arange(FORMS[f], FORMS[f + 1]) for f in sorted(own)]))
    target = digits()[1][everyone]
    return tuple(tuple(everyone[target == digit].tolist()) for digit in range(10))


def prevalence(site: str, size: str) -> Array:
    """Share of each digit (10,) at a site."""
    if size == "2d":
        return np.full(10, 0.1)
    rank = (np.arange(10) - SITES[site].most_frequent) % 10
    share = RATIO ** (-rank / 9)
    return share / share.sum()


@cache
def order(site: str, size: str, seed: int) -> tuple[int, ...]:
    """Digit of each subject of a site.

    Always the one that is furthest behind its share, so that any number of subjects fits; each ten of them are then
    mixed, so that a name says nothing about the digit and no simple split is one by digit.
    """
    share, seen = prevalence(site, size), np.zeros(10)
    drawn = np.zeros(SUBJECTS[size], int)
    for i in range(len(drawn)):
        # Rounded, since what ties must tie on every platform; the lowest digit goes first.
        drawn[i] = np.argmax(np.round(share * (i + 1) - seen, 9))
        seen[drawn[i]] += 1
    random = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, ord(site), 1])))
    return tuple(random.permuted(drawn.reshape(-1, 10), axis=1).ravel().tolist())


def subject(site: str, index: int, *, size: str, seed: int) -> Scan:
    """Subject number `index` of a site; a digit's image is the same in both sizes."""
    drawn = order(site, size, seed)
    digit = drawn[index]
    number = images_of(site, seed)[digit][drawn[:index].count(digit)]
    person, acquisition = (
        np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, 1000 + number, purpose])))
        for purpose in range(2)
    )
    protocol = SITES[site]
    image = protocol.image(thing(digits()[0][number], person, protocol.placing), acquisition)
    columns = {"digit": str(digit), "form": f"F{form_of(number) + 1:02d}", "original": number}
    return Scan(f"{site}{index + 1:03d}", image, None, None, columns)


def shifts() -> tuple[dict[str, str], ...]:
    """A row a site for the documentation."""
    return tuple(
        {
            "site": site.name,
            "machine": site.machine,
            "image": site.effect,
            "stored as": f"PNG, {site.bits} bit",
            "most frequent in imbalanced": " ".join(str((site.most_frequent + i) % 10) for i in range(3)),
        }
        for site in SITES.values()
    )


# Content hash by size at the usual number of subjects and seed 0, written before any method was compared on it.
HASHES = {"2d": "b3f796fd27fe6319", "imbalanced": "f0fa0cdea76ac876"}

SCENARIO = Scenario(
    name="digit-sites",
    description=(
        "Four sites image different handwritten digits with different machines: a film densitometer (A, bright and "
        "sharp); fluoroscopy (B, dark, few photons); ultrasound (C, dark in speckle); magnetic resonance (D, bright, "
        "turned, shaded, ringing). Classification of 32 x 32 pictures, ten classes."
    ),
    sizes=SIZES,
    sites=tuple(SITES),
    shifts=shifts(),
    labels_toml=LABELS_TOML,
    licence=read_file("NOTICE-digits.txt"),
    hashes=HASHES,
    subject=subject,
    usual_subjects=SUBJECTS,
    most_subjects=SUBJECTS,
)
