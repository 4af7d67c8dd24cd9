"""A study folder as `shiftproof study` leaves it, with scores that are drawn and images that are small."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

STRUCTURES = ["csf", "grey", "white"]
METRICS = ["dice", "surface dice", "hd95 mm", "assd mm", "sensitivity", "precision", "volume error ml"]
LEVELS = {  # mean Dice by row
    "erm/none": 0.70,
    "erm/strong": 0.765,
    "dann/strong": 0.772,
    "mldg/strong": 0.74,
    "target-supervised/strong": 0.85,
}
VALIDATION = {"erm/none": 0.88, "erm/strong": 0.885, "dann/strong": 0.89, "mldg/strong": 0.87}


def slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._=-]+", "_", text)


def recipe(name: str) -> dict:
    method, _, transforms = name.partition("/")
    role = "row"
    if method == "target-supervised":
        method, role = "erm", "target-supervised"
    options = {"weight": 1.0, "hidden": 256} if method == "dann" else {}
    return {
        "name": name, "method": method, "options": options, "loss": "dice+ce", "loss_options": {},
        "transforms": transforms, "sampling": {}, "network": {"name": "unet", "widths": [16, 32, 64]},
        "training": {}, "target": False, "test_time": None, "test_time_options": {}, "role": role,
    }  # fmt: skip


def references(rows: list[str]) -> dict:
    plain = "erm/none" if "erm/none" in rows else None
    strong = [r for r in rows if r.endswith("/strong") and not r.startswith("target")]
    return {
        "source-only": plain,
        "pooled": {r: "erm/strong" for r in strong if "erm/strong" in rows},
        "target-supervised": {r: "target-supervised/strong" for r in strong if "target-supervised/strong" in rows},
    }


def score_rows(
    rows: list[str], sites: list[str], seeds: list[int], n: int, *, levels: dict | None = None
) -> pd.DataFrame:
    """Tidy rows: a subject's difficulty is shared by all rows, as it is in life."""
    levels = {**LEVELS, **(levels or {})}
    random = np.random.default_rng(7)
    hard = {site: 0.05 * i for i, site in enumerate(sites)}
    subject_effect = {(site, i): random.normal(0, 0.03) for site in sites for i in range(n)}
    table = []
    for row in rows:
        for seed in seeds:
            for site in sites:
                for i in range(n):
                    for k, structure in enumerate(STRUCTURES):
                        drop = hard[site] * (0.2 if row.startswith("target") else 1)
                        dice = levels[row] - drop + subject_effect[site, i] + 0.03 * (k - 1) + random.normal(0, 0.012)
                        dice = float(np.clip(dice, 0.05, 0.99))
                        status = "ok"
                        if (row, site, i, k) in {
                            ("erm/none", sites[-1], 0, 0),
                            ("mldg/strong", sites[-1], 1, 0),
                        }:
                            dice, status = 0.0, "missed"
                        if (site, i, k) == (sites[0], 2, 0):
                            dice, status = np.nan, "both empty"
                        values = [dice, dice + 0.05, 30 * (1 - dice), 6 * (1 - dice), dice + 0.02, dice - 0.02,
                                  20 * (random.random() - 0.5)]  # fmt: skip
                        if status == "missed":
                            values = [0.0, 0.0, 88.2, 88.2, 0.0, np.nan, -14.0]
                        if status == "both empty":
                            values = [np.nan] * 7
                        table += [
                            (row, site, seed, f"{site}-{i:02d}", site, structure, metric, value, status)
                            for metric, value in zip(METRICS, values, strict=True)
                        ]
    columns = ["row", "held_out", "seed", "subject", "domain", "structure", "metric", "value", "status"]
    return pd.DataFrame(table, columns=columns)


def head(site: int, subject: int, shape: tuple[int, int, int] = (40, 48, 28)) -> tuple:
    """A head-like image and label (SimpleITK) in an oblique orientation of the site's own."""
    import SimpleITK as sitk

    random = np.random.default_rng(100 * site + subject)
    x, y, z = np.meshgrid(*[np.linspace(-1, 1, s) for s in shape], indexing="ij")
    wave = 0.06 * np.sin(7 * x + subject) * np.cos(6 * y) + 0.04 * np.sin(9 * z + site)
    radius = np.sqrt((x / 0.8) ** 2 + (y / 0.9) ** 2 + (z / 0.9) ** 2) + wave
    ventricle = np.sqrt(((np.abs(x) - 0.16) / 0.09) ** 2 + ((y + 0.05) / 0.32) ** 2 + (z / 0.35) ** 2)
    label = np.zeros(shape, np.uint8)
    label[radius < 0.95], label[radius < 0.88], label[radius < 0.68] = 1, 2, 3
    label[ventricle < 1] = 1
    signal = np.array([[20, 60, 320, 480], [20, 500, 360, 250], [10, 90, 240, 420]])[site % 3]
    image = signal[label] * (1 + 0.2 * y) + random.normal(0, 22, shape) + 90 * ((radius > 1.02) & (radius < 1.12))
    angle = 0.12 + 0.1 * site
    turn = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    flip = np.diag([-1, 1, 1]) if site % 2 else np.eye(3)

    def made(array: np.ndarray) -> sitk.Image:
        found = sitk.GetImageFromArray(np.ascontiguousarray(array.transpose(2, 1, 0)))
        found.SetSpacing((3.6, 4.0, 5.5))
        found.SetOrigin((-70.0, -90.0, -60.0))
        found.SetDirection((turn @ flip).ravel().tolist())
        return found

    return made(image.astype(np.float32)), made(label)


def wrong(label, share: float, seed: int):
    """A prediction that is worse the smaller the share: displaced, with holes."""
    import SimpleITK as sitk
    from scipy import ndimage

    array = sitk.GetArrayFromImage(label)
    random = np.random.default_rng(seed)
    noise = ndimage.gaussian_filter(random.normal(size=(3, *array.shape)), (0, 2, 2, 2)) * 60 * (1 - share)
    where = np.indices(array.shape) + noise
    moved = ndimage.map_coordinates(array, where, order=0)
    found = sitk.GetImageFromArray(moved)
    found.CopyInformation(label)
    return found


def write_study(
    root: Path,
    *,
    rows: list[str] | None = None,
    sites: list[str] | None = None,
    seeds: list[int] | None = None,
    n: int = 10,
    images: bool = False,
    records: bool = True,
    failed: list[tuple[str, str, int]] | None = None,
    levels: dict | None = None,
    rename: dict[str, str] | None = None,
    facts: dict | None = None,
) -> Path:
    import SimpleITK as sitk

    rows, sites, seeds = rows or list(LEVELS), sites or ["A", "B", "C"], seeds or [0, 1]
    failed, rename = failed or [], rename or {}
    root.mkdir(parents=True, exist_ok=True)
    table = score_rows(rows, sites, seeds, n, levels=levels)

    def called(name: str) -> str:
        return rename.get(name, name)

    reference = references(rows)
    study = {
        "name": called("brain-sites"), "cohort": str(root / "table.csv"), "cohort_hash": "4f1c9a7be2d04c55",
        "domain_column": "site", "domains": [called(s) for s in [*sites, "Z"]], "held_out": [called(s) for s in sites],
        "seeds": seeds, "rows": [recipe(r) | {"name": called(r)} for r in rows],
        "references": {
            "source-only": reference["source-only"] and called(reference["source-only"]),
            "pooled": {called(k): called(v) for k, v in reference["pooled"].items()},
            "target-supervised": {called(k): called(v) for k, v in reference["target-supervised"].items()},
        },
        "selection": "mean validation score of held-back subjects of the training domains", "tolerance_mm": 2.0,
        "budget": {"steps": 400, "batch": 8}, "primary": "dice",
        "versions": {"python": "3.12.1", "platform": "Linux x86_64", "shiftproof": "0.1.0", "torch": "2.13.0"},
        "command": "shiftproof study table.csv --methods erm/none,erm/strong,dann/strong,mldg/strong --seeds 2",
        **(facts or {}),
    }  # fmt: skip
    (root / "study.json").write_text(json.dumps(study))
    lines = []
    for s, site in enumerate(sites):
        for i in range(n):
            subject = f"{site}-{i:02d}"
            lines.append((called(site), called(subject), called(site), f"images/{subject}.nii.gz",
                          f"labels/{subject}.nii.gz", f"{subject}.nii.gz"))  # fmt: skip
            if images:
                for folder, image in zip(("images", "labels"), head(s, i), strict=True):
                    (root / folder).mkdir(exist_ok=True)
                    sitk.WriteImage(image, str(root / folder / f"{subject}.nii.gz"), True)
    columns = ["held_out", "subject", "domain", "image", "label", "prediction"]
    pd.DataFrame(lines, columns=columns).to_csv(root / "subjects.csv", index=False)

    for row in rows:
        for site in sites:
            for seed in seeds:
                folder = root / "cells" / slug(row) / slug(site) / str(seed)
                folder.mkdir(parents=True)
                place = {"row": called(row), "held_out": called(site), "seed": seed}
                if (row, site, seed) in failed:
                    error = "loss dice+ce is not finite at step 12; lower the learning rate"
                    (folder / "cell.json").write_text(json.dumps({"status": "failed", "error": error, **place}))
                    continue
                run = f"runs/{slug(row)}-{slug(site)}-{seed}"
                own = table[(table["row"] == row) & (table["held_out"] == site) & (table["seed"] == seed)]
                own = own.assign(
                    **{c: own[c].map(called) for c in ("row", "held_out", "subject", "domain", "structure")}
                )
                own.to_csv(folder / "rows.csv", index=False)
                value = VALIDATION.get(row, 0.86) - 0.01 * seed
                validation = {"mean": value, "worst domain": value - 0.04, "by domain": {"Z": value}}
                (folder / "cell.json").write_text(
                    json.dumps(
                        {
                            "status": "done",
                            "seconds": 30.0 + seed,
                            "scoring_seconds": 2.0,
                            "steps": 400,
                            "run": run,
                            "validation": validation,
                            "parameters": 118_000,
                            **place,
                        }
                    )
                )
                if records:
                    write_record(root / run, row, seed, value)
                if images and seed == seeds[0]:
                    (folder / "predictions").mkdir()
                    dice = own[own["metric"] == "dice"].groupby("subject")["value"].mean()
                    for i in range(n):
                        subject = f"{site}-{i:02d}"
                        label = sitk.ReadImage(str(root / "labels" / f"{subject}.nii.gz"))
                        found = wrong(label, float(dice[called(subject)]), i)
                        sitk.WriteImage(found, str(folder / "predictions" / f"{subject}.nii.gz"), True)
    return root


def write_record(run: Path, row: str, seed: int, value: float) -> None:
    run.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    with open(run / "record.jsonl", "w") as file:
        for step in range(10, 401, 10):
            loss = 0.2 + 1.4 * np.exp(-step / 90) + random.normal(0, 0.03)
            losses = {"task": loss, "domain": 0.7} if row.startswith("dann") else {"task": loss}
            file.write(json.dumps({"step": step, "seconds": step / 10, "losses": losses}) + "\n")
            if step % 50 == 0:
                mean = value - 0.5 * np.exp(-step / 60)
                found = {
                    "mean": mean,
                    "worst domain": mean - 0.05,
                    "by domain": {"Z": mean},
                    "by structure": {"csf": mean},
                }
                file.write(json.dumps({"step": step, "validation": found}) + "\n")
        file.write('{"step": 410, "seco')  # killed here


@pytest.fixture(scope="session")
def usual_study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The study without options, for tests that change nothing in it."""
    return write_study(tmp_path_factory.mktemp("usual") / "study")


@pytest.fixture(scope="session")
def usual(usual_study: Path) -> dict:
    """Its summary; for reading."""
    from shiftproof.report import summary

    return summary(usual_study)


@pytest.fixture(scope="session")
def study_writer() -> Callable[..., Path]:
    """Writes a study into any folder, for fixtures that many tests share."""
    return write_study


@pytest.fixture
def make_study(tmp_path: Path) -> Callable[..., Path]:
    def made(name: str = "study", **options: object) -> Path:
        return write_study(tmp_path / name, **options)

    return made


@pytest.fixture(scope="session")
def make_study_at() -> Callable[..., Path]:
    """For fixtures of a module, which have their own folders."""
    return write_study


@pytest.fixture(scope="session")
def illustrated_study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One with images and a failed cell."""
    root = tmp_path_factory.mktemp("illustrated") / "study"
    return write_study(root, images=True, n=3, sites=["A", "B"], failed=[("mldg/strong", "B", 1)])


@pytest.fixture
def make_rows() -> Callable[..., pd.DataFrame]:
    return score_rows


@pytest.fixture
def make_head() -> Callable[..., tuple]:
    return head
