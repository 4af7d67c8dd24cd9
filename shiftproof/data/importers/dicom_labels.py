"""Labels of converted series, from the DICOM-SEG files that belong to them."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from ..declared import Declared
from ..images import write_image
from ..integrity import FileError
from .dicom_headers import Header
from .dicom_segments import label_of, segment_names
from .dicom_series import Faulty, Series
from .dicom_stacks import Irregular
from .found import Scan


def write_labels(files: list[Header], series: list[Series], out: Path, problems: list[Faulty]) -> dict[str, Declared]:
    """Write OUT/labels and give the files to their scans; what cannot be used joins `problems`.

    Structures are numbered in the order of the alphabet over all files.

    Returns:
        The structures that each site annotates.
    """
    names: list[tuple[Header, dict[int, str]]] = []
    for file in files:
        try:
            names.append((file, segment_names(file.path, file.words)))
        except (Irregular, FileError) as error:
            problems.append(Faulty.of(error, file, [file.path]))
    order = sorted({name for _, named in names for name in named.values()})
    values = {name: i for i, name in enumerate(order, start=1)}
    sites: dict[str, Declared] = defaultdict(Declared)
    for file, named in names:
        try:
            for scan in _join(file, {number: values[name] for number, name in named.items()}, series, out):
                sites[scan.site].values |= {name: (values[name],) for name in sorted(named.values())}
        except (Irregular, FileError) as error:
            problems.append(Faulty.of(error, file, [file.path]))
    return dict(sites)


def _join(file: Header, values: dict[int, int], series: list[Series], out: Path) -> list[Scan]:
    """Add a file's structures to the labels of its series; gives the scans."""
    fitting = []
    for one in series:
        first = one.headers[0]
        if (first.series, first.patient) == (file.segmentation, file.patient):
            found = [(scan, label_of(file.path, stack, first.frame_of_reference, values)) for stack, scan in one.scans]
            fitting += [(scan, label) for scan, label in found if label is not None]
    if not fitting:
        raise Irregular("it segments no series that is imported, or lies off its grid")
    for scan, label in fitting:
        if scan.label is not None:
            before = sitk.GetArrayFromImage(sitk.ReadImage(str(scan.label)))
            if ((before != 0) & (label != 0) & (before != label)).any():
                raise Irregular("its segments overlap those of another file of the same series")
            label = np.maximum(label, before)
        path = out / "labels" / scan.images["image"].name
        image = sitk.GetImageFromArray(label)
        image.CopyInformation(sitk.ReadImage(str(scan.images["image"])))
        write_image(image, path)
        scan.label = path
    return [scan for scan, _ in fitting]
