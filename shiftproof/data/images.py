"""Image files in and out, through SimpleITK: one volume a file, always with three axes."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from ..errors import GeometryError, ImageError, StorageError
from ..files import replacing
from .filenames import DETACHED, PICTURES, SUFFIXES, file_of, suffix_of, volume_of
from .filenames import stem_of as stem_of
from .integrity import AGAIN, FileError, not_finite, require_plausible, require_whole

_PICTURE = "shiftproof picture"

# The library's own warnings would stand between the lines of every command; what matters is raised.
sitk.ProcessObject.SetGlobalWarningDisplay(False)


def read_image(path: Path | str) -> sitk.Image:
    """One volume as (X, Y, Z), its values as stored.

    `file.nii.gz#2` is the volume 2, from 0, of a 4D file, or the third value of each voxel of a file with
    several (colours, vectors). A picture (PNG, TIFF, 2D NIfTI) becomes (X, Y, 1) and stays known as one, see
    `is_picture`.

    Raises:
        FileError: If the file is missing, truncated, unreadable, promises more than it can hold, has several
            volumes or colours and none is named, lacks the one that is named, or holds values that are not
            finite.
    """
    path = Path(path)
    image = _read(path)
    if "complex" in image.GetPixelIDTypeAsString():
        raise FileError(f"{path} has complex values, expected real ones", "complex", "save the magnitude")
    picture = image.GetDimension() == 2
    if picture:
        image = sitk.JoinSeries(image)
    if suffix_of(path) in PICTURES:
        image.SetSpacing((1.0, 1.0, 1.0))
        image.SetOrigin((0.0, 0.0, 0.0))
    image = _bare(image)
    if picture:
        image.SetMetaData(_PICTURE, "1")
    _require_place(image, path)
    _require_finite(image, path)
    return image


def volumes_in(path: Path | str) -> int:
    """How many volumes a file has, by its header; values of a voxel count as volumes.

    Raises:
        FileError: If the header cannot be read.
    """
    reader = _opened(Path(path))
    return math.prod(reader.GetSize()[3:]) * reader.GetNumberOfComponents()


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
    with _explained(path):
        reader = _opened(path)
        number, volumes = volume_of(path), math.prod(reader.GetSize()[3:])
        values = reader.GetNumberOfComponents()
        if number is None and volumes * values > 1:
            raise _several(path, reader.GetSize(), values)
        if min(volumes, values) > 1:
            raise FileError(
                f"{path} has {volumes} volumes of {values} values a voxel, expected volumes or values",
                cure="save each volume as a file of its own",
            )
        if (number or 0) >= volumes * values:
            raise FileError(
                f"{path} names volume {number}, counted from 0, but {file_of(path).name} has {volumes * values}",
                "missing",
                f"name one from 0 to {volumes * values - 1}",
            )
        if len(reader.GetSize()) > 3:
            place = np.unravel_index(0 if volumes == 1 else number or 0, reader.GetSize()[3:], order="F")
            reader.SetExtractIndex([0, 0, 0, *(int(i) for i in place)])
            reader.SetExtractSize([*reader.GetSize()[:3], *(0 for _ in place)])
        image = reader.Execute()
        return sitk.VectorIndexSelectionCast(image, number or 0) if values > 1 else image


def _opened(path: Path) -> sitk.ImageFileReader:
    """A reader that has read the header of a file which is whole and no larger than it can be."""
    file = file_of(path)
    with _explained(path):
        if not file.exists():
            raise FileError(
                f"{path} does not exist", "missing", "correct the path; relative ones count from the table's folder"
            )
        if file.is_dir() or not suffix_of(file):
            what = "is a folder" if file.is_dir() else "is no image format known here"
            raise FileError(f"{path} {what}", cure=f"name a file that ends in {', '.join(SUFFIXES)}")
        require_whole(file)
        reader = sitk.ImageFileReader()
        reader.SetFileName(str(file))
        reader.ReadImageInformation()
        width = _BYTES.get(reader.GetPixelID(), 8) * reader.GetNumberOfComponents()
        require_plausible(file, math.prod(reader.GetSize()) * width)
    return reader


_BYTES = {
    kind: width
    for width, names in {1: ("UInt8", "Int8"), 2: ("UInt16", "Int16"), 4: ("UInt32", "Int32", "Float32")}.items()
    for name in names
    for kind in (getattr(sitk, f"sitk{name}"), getattr(sitk, f"sitkVector{name}"))
}
"""Bytes of a value by type; 8 for all others."""


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    """What the library and the system say of a file, as a `FileError`."""
    try:
        yield
    except OSError as error:
        why = error.strerror or error
        raise FileError(f"{path} cannot be read: {why}", cure="check the disk and the permissions") from error
    except MemoryError as error:
        raise FileError(f"{path} does not fit into memory", "too large", "use a machine with more memory") from error
    except RuntimeError as error:
        message = str(error)
        if "orthonormal" in message:
            raise FileError(
                f"{path} has axes that are not at right angles (a sheared affine), expected a regular grid",
                "sheared",
                "resample it to a rigid affine, or correct its sform",
            ) from error
        raise FileError(f"{path} cannot be read: {_last_line(error)}", cure=AGAIN) from error


def _bare(image: sitk.Image) -> sitk.Image:
    """The image without the notes in its header."""
    try:
        for key in image.GetMetaDataKeys():
            image.EraseMetaData(key)
    except TypeError:  # a name that is no text cannot be named
        array = sitk.GetArrayViewFromImage(image)
        bare = sitk.GetImageFromArray(array, isVector=False)
        bare.CopyInformation(image)
        return bare
    return image


def _several(path: Path, size: tuple[int, ...], values: int) -> FileError:
    if values > 1:
        return FileError(
            f"{path} has {values} values a voxel (colour, or a vector field), expected 1",
            "colour",
            f"convert it to grey, or name each as a channel of its own (columns image:NAME, cells {path.name}#0 ...)",
        )
    return FileError(
        f"{path} is {len(size)}D with {math.prod(size[3:])} volumes of {_times(size[:3])} voxels, "
        "expected one volume a file",
        "4D",
        f"name the volume that is meant ({path.name}#0 is the first), or each as a channel (columns image:NAME)",
    )


def _require_place(image: sitk.Image, path: Path) -> None:
    header = (*image.GetSpacing(), *image.GetOrigin(), *image.GetDirection())
    if not np.isfinite(header).all() or min(image.GetSpacing()) <= 0 or not image.GetNumberOfPixels():
        raise FileError(
            f"{path} has a header without a place: spacing {_numbers(image.GetSpacing())} mm, origin "
            f"{_numbers(image.GetOrigin())} mm, {_times(image.GetSize())} voxels",
            cure="correct its affine, or export it again",
        )


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
