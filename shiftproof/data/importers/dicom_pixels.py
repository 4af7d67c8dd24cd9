"""Values of a volume from its DICOM files."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from ..images import mark_picture
from ..integrity import FileError, not_finite, require_plausible
from .dicom_headers import Plane, numbers, reading
from .dicom_stacks import axes, step_mm


def volume_of(stack: list[Plane]) -> sitk.Image:
    """The planes, in their order, as a volume; a plane without a place as a picture.

    Values are rescaled as the files say; where a file shows small values bright (MONOCHROME1), they are turned
    round, so that bright means the same for all.

    Raises:
        FileError: If a file's pixels cannot be read.
    """
    files: dict[Path, np.ndarray] = {}
    planes = []
    for plane in stack:
        if plane.path not in files:
            files = {plane.path: _values(plane.path)}
        planes.append(_scaled(files[plane.path], plane))
    array = _compact(np.stack(planes))
    if not np.isfinite(array).all():
        raise not_finite(stack[0].path, int((~np.isfinite(array)).sum()), array.size)
    image = sitk.GetImageFromArray(array)
    first = stack[0]
    image.SetSpacing((*(first.spacing or (1.0, 1.0)), step_mm(stack) if first.position else 1.0))
    if first.position and first.orientation:
        image.SetOrigin(first.position)
        image.SetDirection(axes(first).T.ravel().tolist())
    else:
        mark_picture(image)
    return image


def _values(path: Path) -> np.ndarray:
    """(frames, rows, columns), stored values; those of files that pydicom has no decoder for come from SimpleITK."""
    import pydicom

    with reading(path):
        dataset = pydicom.dcmread(path, force=True)
        if "PixelData" not in dataset and "FloatPixelData" not in dataset and "DoubleFloatPixelData" not in dataset:
            raise FileError(f"{path} has no pixels", "truncated", "copy or export it again")
        shape = (int(dataset.get("NumberOfFrames", 1) or 1), int(dataset.Rows), int(dataset.Columns))
        require_plausible(path, math.prod(shape) * max(int(dataset.get("BitsAllocated", 8)) // 8, 1))
        if "TransferSyntaxUID" not in dataset.file_meta:
            little, implicit = dataset.original_encoding[1], dataset.original_encoding[0]
            uid = pydicom.uid.ImplicitVRLittleEndian if implicit else pydicom.uid.ExplicitVRLittleEndian
            dataset.file_meta.TransferSyntaxUID = uid if little else pydicom.uid.ExplicitVRBigEndian
        try:
            array = dataset.pixel_array
        except (NotImplementedError, RuntimeError):
            if shape[0] > 1:  # whose scales can differ, which SimpleITK does not tell
                raise FileError(
                    f"{path} has several compressed frames that pydicom has no decoder for",
                    cure="pip install pylibjpeg with its plugins, or export it without compression",
                ) from None
            array = _decoded(path, dataset)
        array = np.asarray(array).reshape(shape)
        if "MONOCHROME1" in str(dataset.get("PhotometricInterpretation", "")):
            signed, bits = int(dataset.get("PixelRepresentation", 0)), int(dataset.get("BitsStored", 16))
            array = -1 - array if signed else (1 << bits) - 1 - array.astype(np.int64)
        return array


def _decoded(path: Path, dataset: Any) -> np.ndarray:
    """Stored values by SimpleITK, which rescales by itself what it reads."""
    array = sitk.GetArrayFromImage(sitk.ReadImage(str(path), imageIO="GDCMImageIO"))
    slope, intercept = numbers(dataset.get("RescaleSlope"), 1), numbers(dataset.get("RescaleIntercept"), 1)
    return (array - (intercept or (0.0,))[0]) / ((slope or (1.0,))[0] or 1.0)


def _scaled(values: np.ndarray, plane: Plane) -> np.ndarray:
    slope, intercept = plane.scale
    frame = values[plane.frame or 0]
    if (slope, intercept) == (1, 0):
        return frame
    small = frame.dtype.kind in "iu" and frame.itemsize <= 2 and abs(slope) < 2**14 and abs(intercept) < 2**30
    if small and slope.is_integer() and intercept.is_integer():
        return frame.astype(np.int32) * int(slope) + int(intercept)
    return (frame * np.float64(slope) + intercept).astype(np.float32)


def _compact(array: np.ndarray) -> np.ndarray:
    """The same values in the smallest usual type: int16, int32, or float32 for what are no whole numbers."""
    if array.dtype.kind == "f" and not (array == np.rint(array)).all():
        return array.astype(np.float32)
    for kind in (np.int16, np.int32):
        if array.min() >= np.iinfo(kind).min and array.max() <= np.iinfo(kind).max:
            return array.astype(kind)
    return array.astype(np.float32)
