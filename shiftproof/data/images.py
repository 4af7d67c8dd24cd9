"""Image files in and out, through SimpleITK: one volume a file, always with three axes."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from ..errors import GeometryError, ImageError, StorageError
from ..files import replacing
from .integrity import AGAIN, FileError, not_finite, require_whole

SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd", ".png", ".tiff", ".tif")
"""What can be read, longest first where one ends with another."""

DETACHED = (".nhdr", ".mhd")
"""Headers that name a second file with the values: read but not written, as two files have no single step."""

PICTURES = (".png", ".tiff", ".tif")
"""Formats whose resolution is about printing, not about the body: their voxels count as 1 mm."""

_PICTURE = "shiftproof picture"

# The library's own warnings would stand between the lines of every command; what matters is raised.
sitk.ProcessObject.SetGlobalWarningDisplay(False)


def suffix_of(path: Path | str) -> str:
    """The image extension of a file name, ".nii.gz" as one; "" for other files."""
    name = Path(path).name.lower()
    return next((suffix for suffix in SUFFIXES if name.endswith(suffix)), "")


def stem_of(path: Path | str) -> str:
    """The file name without its image extension."""
    name = Path(path).name
    return name[: len(name) - len(suffix_of(name))]


def read_image(path: Path | str) -> sitk.Image:
    """One volume as (X, Y, Z), its values as stored.

    A picture (PNG, TIFF, 2D NIfTI) becomes (X, Y, 1) and stays known as one, see `is_picture`. A trailing
    axis of length 1 is dropped.

    Raises:
        FileError: If the file is missing, truncated, unreadable, has several volumes or colours, or holds
            values that are not finite.
    """
    path = Path(path)
    image = _read(path)
    while image.GetDimension() > 3 and image.GetSize()[-1] == 1:
        image = _first_of_last_axis(image)
    if image.GetDimension() > 3:
        number = int(np.prod(image.GetSize()[3:]))
        raise FileError(
            f"{path} is {image.GetDimension()}D with {number} volumes of {_times(image.GetSize()[:3])} "
            "voxels, "
            "expected one volume a file",
            "4D",
            "save the volume that is meant, or each as a file and a channel of its own (columns image:NAME)",
        )
    if image.GetNumberOfComponentsPerPixel() != 1:
        number = image.GetNumberOfComponentsPerPixel()
        raise FileError(
            f"{path} has {number} values a voxel (colour, or a vector field), expected 1",
            "colour",
            "convert it to grey, or save each as a file and a channel of its own (columns image:NAME)",
        )
    if "complex" in image.GetPixelIDTypeAsString():
        raise FileError(f"{path} has complex values, expected real ones", "complex", "save the magnitude")
    picture = image.GetDimension() == 2
    if picture:
        image = sitk.JoinSeries(image)
    if suffix_of(path) in PICTURES:
        image.SetSpacing((1.0, 1.0, 1.0))
        image.SetOrigin((0.0, 0.0, 0.0))
    for key in image.GetMetaDataKeys():
        image.EraseMetaData(key)
    if picture:
        image.SetMetaData(_PICTURE, "1")
    _require_finite(image, path)
    return image


def is_picture(image: sitk.Image) -> bool:
    """Whether this volume of one slice was a 2D file, which has no place in the body's three axes."""
    return bool(image.HasMetaDataKey(_PICTURE))


def mark_picture(image: sitk.Image) -> None:
    """Remember that this volume of one slice is a 2D file's."""
    image.SetMetaData(_PICTURE, "1")


def write_image(image: sitk.Image, path: Path | str) -> None:
    """Write one volume, compressed where the format can; complete or not at all.

    A picture is written with its two axes.

    Raises:
        ImageError: If the extension is unknown or cannot hold the image.
        StorageError: If the disk is full, read-only or gone.
    """
    path = Path(path)
    suffix = suffix_of(path)
    if not suffix or suffix in DETACHED:
        what = "its format keeps values in a second file" if suffix else "its format is unknown"
        raise ImageError(f"cannot write {path}: {what}; use .nii.gz, .nrrd, .mha, .png or .tif")
    if suffix == ".png" and image.GetSize()[2:] not in ((), (1,)):
        raise ImageError(f"cannot write {path}: PNG holds one slice, got {_times(image.GetSize())}; use .nii.gz")
    if image.GetDimension() == 3 and (is_picture(image) or suffix == ".png"):
        image = _first_of_last_axis(image)
    with replacing(path) as temporary:
        try:
            sitk.WriteImage(image, str(temporary), useCompression=suffix not in PICTURES)
        except RuntimeError as error:
            raise StorageError(
                f"cannot write {path}: {_last_line(error)}; check that the disk has space and the folder allows writing"
            ) from error
        _require_written(temporary, path)


def compare_geometry(first: sitk.Image, second: sitk.Image, *, tolerance: float = 1e-3) -> str | None:
    """In what the grids differ and by how much; None if they are the same.

    Args:
        first: One image.
        second: The other.
        tolerance: Of spacing and origin, relative to the spacing; of the axes' directions, in radians.
    """
    spacing = np.array(first.GetSpacing())
    differences = []
    if first.GetSize() != second.GetSize():
        differences.append(f"size {_times(first.GetSize())} against {_times(second.GetSize())} voxels")
    off = np.abs(spacing - second.GetSpacing())
    if (off > tolerance * spacing).any():
        differences.append(
            f"spacing {_numbers(first.GetSpacing())} against {_numbers(second.GetSpacing())} mm (by up to "
            f"{off.max():.3g} mm)"
        )
    off = np.abs(np.array(first.GetOrigin()) - second.GetOrigin())
    if (off > tolerance * spacing.min()).any():
        differences.append(
            f"origin {_numbers(first.GetOrigin())} against {_numbers(second.GetOrigin())} mm (by "
            f"{np.linalg.norm(off):.3g} mm)"
        )
    axes = [np.reshape(i.GetDirection(), (3, 3)) for i in (first, second)]
    # The sine and the cosine together: the cosine alone cannot tell small angles from rounding.
    sine, cosine = np.linalg.norm(np.cross(axes[0], axes[1], axis=0), axis=0), (axes[0] * axes[1]).sum(0)
    angle = np.arctan2(sine, cosine).max()
    if angle > tolerance:
        differences.append(f"direction by {np.degrees(angle):.3g} degrees")
    return ", ".join(differences) or None


def require_same_geometry(first: sitk.Image, second: sitk.Image, what: str) -> None:
    """Nothing, if both share a grid.

    Raises:
        GeometryError: Otherwise, with the amounts; `what` names the two.
    """
    difference = compare_geometry(first, second)
    if difference:
        raise GeometryError(
            f"{what} do not share a grid: {difference}; resample one to the other, or correct the header that is wrong"
        )


def array_of(image: sitk.Image) -> np.ndarray:
    """The voxels as (X, Y, Z), a read-only view: SimpleITK itself counts (Z, Y, X)."""
    return np.asarray(_Held(image)).transpose(2, 1, 0)


def image_of(array: np.ndarray, like: sitk.Image | None = None) -> sitk.Image:
    """An (X, Y, Z) array as an image, on the grid of `like` if given."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.transpose(2, 1, 0)))
    if like is not None:
        image.CopyInformation(like)
        if is_picture(like):
            mark_picture(image)
    return image


class _Held:
    """An image's memory that lives as long as an array on it; SimpleITK's own view does not see to that."""

    def __init__(self, image: sitk.Image) -> None:
        self._image = image
        self.__array_interface__ = sitk.GetArrayViewFromImage(image).__array_interface__


def _read(path: Path) -> sitk.Image:
    if not path.exists():
        raise FileError(
            f"{path} does not exist",
            "missing",
            "correct the path; relative ones count from the table's folder",
        )
    if path.is_dir() or not suffix_of(path):
        what = "is a folder" if path.is_dir() else "is no image format known here"
        raise FileError(f"{path} {what}", cure=f"name a file that ends in {', '.join(SUFFIXES)}")
    try:
        require_whole(path)
        return sitk.ReadImage(str(path))
    except OSError as error:
        why = error.strerror or error
        raise FileError(f"{path} cannot be read: {why}", cure="check the disk and the permissions") from error
    except RuntimeError as error:
        message = str(error)
        if "orthonormal" in message:
            raise FileError(
                f"{path} has axes that are not at right angles (a sheared affine), expected a regular grid",
                "sheared",
                "resample it to a rigid affine, or correct its sform",
            ) from error
        raise FileError(f"{path} cannot be read: {_last_line(error)}", cure=AGAIN) from error


def _require_finite(image: sitk.Image, path: Path) -> None:
    array = sitk.GetArrayViewFromImage(image)
    if array.dtype.kind != "f":
        return
    # As float32, which is what everything later computes in.
    with np.errstate(over="ignore"):
        bad = array.size - int(np.count_nonzero(np.isfinite(array.astype(np.float32, copy=False))))
    if bad:
        raise not_finite(path, bad, array.size)


def _require_written(temporary: Path, path: Path) -> None:
    """Some writers do not notice a full disk."""
    try:
        require_whole(temporary)
        if suffix_of(path) in (".nrrd", ".png"):  # whose length `require_whole` does not know
            sitk.ReadImage(str(temporary))
    except (FileError, RuntimeError) as error:
        if isinstance(error, FileError) and error.kind == "not finite":  # complete, if of little use
            return
        raise StorageError(f"cannot write {path}: it came out incomplete; the disk is probably full") from error


def _first_of_last_axis(image: sitk.Image) -> sitk.Image:
    size = list(image.GetSize())
    size[-1] = 0
    return sitk.Extract(image, size, [0] * len(size))


def _last_line(error: RuntimeError) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return re.sub(r"^(ITK ERROR: |sitk::ERROR: )?(\w+\(0x\w+\): )?", "", lines[-1]) if lines else "unknown reason"


def _times(numbers: tuple[int, ...]) -> str:
    return " x ".join(str(n) for n in numbers)


def _numbers(values: tuple[float, ...]) -> str:
    return "(" + ", ".join(f"{v:.5g}" for v in values) + ")"
