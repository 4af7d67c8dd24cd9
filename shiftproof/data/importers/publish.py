"""From what was found to `table.csv` and `labels.toml`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import CohortError, LabelError
from ...files import replacing
from ..cohort import Cohort
from ..declared import Declared
from ..meanings import label_map, values_of
from ..targets import Labels
from .found import Found, Progress, Scan, by_site
from .regions import region_map
from .target import targets_of

if TYPE_CHECKING:
    import pandas

Classes = Sequence[str] | Mapping[str, int | Sequence[int]] | None


def publish(
    found: Found,
    folder: Path,
    out: Path | str | None,
    *,
    domain: str = "site",
    classes: Classes = None,
    target: str | None = None,
    progress: Progress | None = None,
) -> Cohort:
    """Write the table and the meaning of its labels, and give the cohort.

    Where files of an earlier import would change, what was there is kept beside, as `NAME.old`.

    Args:
        found: The scans.
        folder: Where they were found.
        out: Folder, or name of the table, to write to; by default `folder`.
        domain: Name of the domain column.
        classes: As in `import_cohort`.
        target: Column with the labels, in place of label files.
        progress: Called with (labels read, all).
    """
    names = by_site(found)
    table = _table(found.scans, domain, _name_channels(found.scans, names), with_labels=target is None)
    column = domain if domain not in _columns(found.scans) else "site"
    try:
        labels, notes = _meaning(found, names, table, column, classes, target, progress)
    except (LabelError, CohortError) as error:
        if str(folder) in str(error):
            raise
        raise type(error)(f"{folder}: {error}") from error
    cohort = Cohort(table, folder, domain=domain, labels=labels)

    out = folder if out is None else Path(out)
    path = out if out.suffix in (".csv", ".parquet") else out / "table.csv"
    before = {p: p.read_bytes() for p in (path, path.parent / "labels.toml") if p.exists()}
    cohort.write(path)
    if labels is not None:
        labels.write(path.parent / "labels.toml", notes=notes)
    for file, content in before.items():
        if file.read_bytes() != content:
            with replacing(file.with_name(file.name + ".old")) as temporary:
                temporary.write_bytes(content)
    return Cohort.read(path, domain=domain)


def _meaning(
    found: Found,
    names: dict[str, Declared],
    table: pandas.DataFrame,
    column: str,
    classes: Classes,
    target: str | None,
    progress: Progress | None,
) -> tuple[Labels | None, dict[str, list[str]]]:
    """What the labels mean, and comments for the file."""
    if target is not None:
        named, unit = list(classes) if classes else None, found.units.get(target, "")
        return targets_of(table, target, named, unit=unit), {}
    labels = [(scan.site, scan.label) for scan in found.scans if scan.label]
    values = values_of(labels, progress=progress)
    occurring = set().union(*values.values())
    for site, one in names.items():
        if one.lookup:
            known = {name: numbers for name, numbers in one.values.items() if occurring & set(numbers)}
            names[site] = replace(one, values=known)
    if classes is None and any(declared.overlap for declared in names.values()):
        return region_map(values, names, column), {}
    return label_map(values, names, classes, column)


def _columns(scans: list[Scan]) -> list[str]:
    """Further columns in which something stands."""
    return list(dict.fromkeys(c for scan in scans for c, value in scan.columns.items() if value))


def _name_channels(scans: list[Scan], names: Mapping[str, Declared]) -> list[str]:
    """Rename numbered channels as the sites' `dataset.json` says, in place; gives all names.

    Raises:
        CohortError: If some sites number or name their channels and others do not.
    """
    for scan in scans:
        known = names[scan.site].channels
        scan.images = {known.get(channel, channel): path for channel, path in scan.images.items()}
    channels = list(dict.fromkeys(c for scan in scans for c in scan.images))
    if channels == ["0000"]:
        for scan in scans:
            scan.images = {"image": scan.images["0000"]}
        return ["image"]
    if "image" in channels and len(channels) > 1:
        by = {c: next(s.site for s in scans if c in s.images) for c in channels}
        raise CohortError(
            f"{by.pop('image')} has one channel without a name, but "
            + ", ".join(f"{site} has {c}" for c, site in by.items())
            + "; name the channel of each site in its dataset.json (channel_names), or give all one layout"
        )
    return channels


def _table(scans: list[Scan], domain: str, channels: list[str], *, with_labels: bool) -> pandas.DataFrame:
    import pandas

    further = _columns(scans)
    rows = []
    for scan, subject in zip(scans, _subjects(scans), strict=True):
        files = {c if c == "image" else f"image:{c}": scan.images.get(c) for c in channels}
        if with_labels:
            files["label"] = scan.label
        cells = {column: str(path.absolute()) if path else "" for column, path in files.items()}
        site = {"site" if domain in further else domain: scan.site}
        rows.append({"subject": subject, **site, **cells, "split": scan.split, **dict.fromkeys(further, "")})
        rows[-1] |= {c: value for c, value in scan.columns.items() if c in further}
    table = pandas.DataFrame(rows)
    empty = [row["subject"] for row in rows if not row[domain]]
    if empty:
        raise CohortError(f'the column "{domain}" is empty for {", ".join(empty[:8])}; name another domain column')
    return table if any(scan.split == "test" for scan in scans) else table.drop(columns="split")


def _subjects(scans: list[Scan]) -> list[str]:
    def name(scan: Scan) -> str:
        # Sessions and runs of a BIDS subject are scans of one person.
        bids = re.match(r"sub-[A-Za-z0-9]+(?=_|$)", scan.stem)
        return scan.subject or (bids[0] if bids else scan.stem)

    sites: dict[str, set[str]] = {}
    for scan in scans:
        sites.setdefault(name(scan), set()).add(scan.source)
    collide = any(len(s) > 1 for s in sites.values())
    return [f"{scan.source}-{name(scan)}" if collide else name(scan) for scan in scans]
