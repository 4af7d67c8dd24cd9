"""Damaged, absurd and hostile files for every reader: only typed errors may come out, with the file's name.

    python benchmarks/fuzz_readers.py [--inputs 10000] [--seed 0] [--readers nifti,dicom] [--seconds 20] [--keep DIR]

For each reader sound files are made by independent libraries, then one of them is changed: bits, bytes and ranges of
bytes, extreme numbers where a header has its own, cuts, and in JSON and TOML values of other types; compressed files
are changed inside and outside of their compression. Each input is a function of the seed, the reader and its number.

Readers run in processes of their own with a limit of memory beyond what they have at the start; one that dies, hangs or
raises anything but `ShiftproofError` is a failure, and so is an error that does not name a file or folder of its input.
Prints a table by reader and the failures; the exit code is 1 if there is one.
"""

from __future__ import annotations

import argparse
import copy
import gzip
import json
import math
import os
import random
import resource
import select
import shutil
import signal
import struct
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from shiftproof.errors import ShiftproofError
from shiftproof.versions import versions

MEMORY = 2 << 30
"""Bytes of address space that an input may take beyond the start."""

BATCH = 250


@dataclass
class Reader:
    """What is fed.

    Args:
        make: Writes sound files into a folder.
        read: Reads them.
        changed: Names of the files that are changed, one an input; all by default.
    """

    make: Callable[[Path], None]
    read: Callable[[Path], Any]
    changed: tuple[str, ...] = ()


@dataclass
class Tally:
    """What came of a reader's inputs."""

    inputs: int = 0
    refused: int = 0
    read: int = 0
    slowest_s: float = 0.0
    memory: int = 0
    failures: list[str] = field(default_factory=list)


class TooLong(BaseException):
    """An input that takes longer than it may; no `Exception`, so that nobody takes it for a damaged file."""


# Sound files -----------------------------------------------------------------------------------------------


def volume(path: Path, shape: tuple[int, ...] = (6, 5, 4), *, top: int = 0) -> None:
    """A NIfTI file by nibabel: noise, or a label with values below `top`."""
    import nibabel

    drawn = np.random.default_rng(len(path.name))
    array = drawn.integers(0, top, shape).astype(np.uint8) if top else drawn.normal(0, 9, shape).astype(np.float32)
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(array, np.diag([1, 1, 2, 1])), path)


def by_simpleitk(name: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        import SimpleITK as sitk

        shape = (9, 8) if name.endswith(".png") else (4, 9, 8)
        array = np.random.default_rng(0).integers(0, 200, shape).astype(np.uint8)
        sitk.WriteImage(sitk.GetImageFromArray(array), str(folder / name), name.endswith((".mha", ".nrrd")))

    return make


def dicom(folder: Path) -> None:
    import pydicom
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

    for i in range(3):
        meta = FileMetaDataset()
        meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, CTImageStorage
        meta.MediaStorageSOPInstanceUID = f"1.2.3.{i}"
        ds = Dataset()
        ds.file_meta = meta
        ds.SOPClassUID, ds.SOPInstanceUID, ds.Modality = CTImageStorage, f"1.2.3.{i}", "CT"
        ds.PatientID, ds.PatientName, ds.Manufacturer, ds.InstitutionName = "P1", "A^B", "ACME", "H"
        ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = "1.2.4", "1.2.5", "1.2.6"
        ds.ImagePositionPatient, ds.ImageOrientationPatient = [0, 0, 2 * i], [1, 0, 0, 0, 1, 0]
        ds.PixelSpacing, ds.SliceThickness, ds.InstanceNumber = [1, 1], 2, i
        ds.Rows, ds.Columns, ds.SamplesPerPixel, ds.PhotometricInterpretation = 5, 4, 1, "MONOCHROME2"
        ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 0
        ds.RescaleSlope, ds.RescaleIntercept, ds.ImageType = 1, -1024, ["ORIGINAL", "PRIMARY"]
        ds.PixelData = np.arange(20, dtype=np.uint16).tobytes()
        pydicom.dcmwrite(folder / f"{i}.dcm", ds, enforce_file_format=True)


def nnunet(folder: Path) -> None:
    for channel in range(2):
        volume(folder / "imagesTr" / f"a_{channel:04d}.nii.gz")
    volume(folder / "labelsTr" / "a.nii.gz", top=3)
    labels = {"background": 0, "whole": [1, 2], "core": 2}
    content = {"channel_names": {"0": "T1", "1": "T2"}, "labels": labels, "file_ending": ".nii.gz", "numTraining": 1}
    (folder / "dataset.json").write_text(json.dumps(content))


def decathlon(folder: Path) -> None:
    volume(folder / "imagesTr" / "a.nii.gz", (6, 5, 4, 2))
    volume(folder / "labelsTr" / "a.nii.gz", top=3)
    content = {
        "modality": {"0": "T1", "1": "T2"},
        "labels": {"0": "background", "1": "x", "2": "y"},
        "training": [{"image": "./imagesTr/a.nii.gz", "label": "./labelsTr/a.nii.gz"}],
        "test": ["./imagesTr/a.nii.gz"],
    }
    (folder / "dataset.json").write_text(json.dumps(content))


def bids(folder: Path) -> None:
    for name in ("sub-1", "sub-2"):
        volume(folder / name / "anat" / f"{name}_T1w.nii.gz")
        volume(folder / "derivatives" / "x" / name / "anat" / f"{name}_dseg.nii.gz", top=3)
    (folder / "participants.tsv").write_text("participant_id\tage\tsite\nsub-1\t30\tA\nsub-2\t40\tB\n")
    (folder / "participants.json").write_text(json.dumps({"age": {"Units": "years"}}))
    (folder / "T1w.json").write_text(json.dumps({"Manufacturer": "ACME", "MagneticFieldStrength": 3}))
    (folder / "derivatives" / "x" / "dseg.tsv").write_text("index\tname\n1\tGM\n2\tWM\n")


def cohort(folder: Path, kind: str = "csv") -> None:
    import pandas as pd

    rows = [{"subject": s, "site": d, "image": f"{s}.nii.gz", "label": "", "age": "3"} for s, d in ("aA", "bB")]
    table = pd.DataFrame(rows)
    if kind == "csv":
        table.to_csv(folder / "table.csv", index=False)
    else:
        table.to_parquet(folder / "table.parquet", index=False)
    labels(folder)


def labels(folder: Path) -> None:
    (folder / "labels.toml").write_text(
        'classes = ["background", "a", "b"]\n[default]\na = 1\nb = [2, 4]\nignore = 9\n[site.A]\na = 3\n'
    )


def targets(folder: Path) -> None:
    (folder / "labels.toml").write_text(
        'task = "classification"\nkind = "ordinal"\ncolumn = "age"\nclasses = ["3", "4"]\n'
    )


def plan() -> Any:
    from shiftproof.data.plan import Plan

    scheme = {"scheme": "clip", "lower": -1.0, "upper": 1.0, "mean": 0.0, "sd": 1.0}
    shape = (1.0, 1.0, 1.0)
    return Plan(3, "RAS", shape, ("image",), ("background", "a"), {"image": scheme}, (8, 8, 8))


def model(folder: Path) -> None:
    from shiftproof.deploy.model import save_model
    from shiftproof.methods.method import Setting
    from shiftproof.recipe import Recipe, build

    recipe, setting = Recipe("erm", method="erm", network={"widths": [4, 8]}), Setting(["A", "B"], 1, 3, 2)
    save_model(folder / "model", build(recipe, plan(), setting, seed=0), recipe, plan(), setting)


# Reading ---------------------------------------------------------------------------------------------------


def image(name: str) -> Callable[[Path], Any]:
    def read(folder: Path) -> Any:
        from shiftproof.data.images import read_image

        return read_image(folder / name)

    return read


def imported(format: str, **options: Any) -> Callable[[Path], Any]:
    def read(folder: Path) -> Any:
        from shiftproof.data.importers import import_cohort

        return import_cohort(folder, folder.with_name("out"), format=format, **options)

    return read


def read_cohort(folder: Path) -> Any:
    from shiftproof.data.cohort import Cohort

    return list(Cohort.read(folder).rows())


def read_map(folder: Path) -> Any:
    from shiftproof.data.labels import LabelMap

    return LabelMap.read(folder / "labels.toml").encode(np.array([0, 3]), "A", name=str(folder))


def read_targets(folder: Path) -> Any:
    from shiftproof.data.targets import read_labels

    return read_labels(folder / "labels.toml")


def read_plan(folder: Path) -> Any:
    from shiftproof.data.plan import Plan

    return Plan.read(folder / "plan.json")


def read_model(folder: Path) -> Any:
    from shiftproof.deploy.model import load_model

    return load_model(folder / "model", device="cpu")


READERS = {
    "nifti": Reader(lambda f: volume(f / "a.nii"), image("a.nii")),
    "nifti.gz": Reader(lambda f: volume(f / "a.nii.gz", (6, 5, 4, 2)), image("a.nii.gz#1")),
    "nrrd": Reader(by_simpleitk("a.nrrd"), image("a.nrrd")),
    "nhdr": Reader(by_simpleitk("a.nhdr"), image("a.nhdr"), ("a.nhdr",)),
    "mha": Reader(by_simpleitk("a.mha"), image("a.mha")),
    "mhd": Reader(by_simpleitk("a.mhd"), image("a.mhd"), ("a.mhd",)),
    "png": Reader(by_simpleitk("a.png"), image("a.png")),
    "tiff": Reader(by_simpleitk("a.tif"), image("a.tif")),
    "dicom": Reader(dicom, imported("dicom")),
    "nnunet": Reader(nnunet, imported("nnunet"), ("dataset.json",)),
    "decathlon": Reader(decathlon, imported("decathlon"), ("dataset.json",)),
    "bids": Reader(bids, imported("bids"), ("participants.tsv", "participants.json", "T1w.json", "dseg.tsv")),
    "bids target": Reader(bids, imported("bids", target="age"), ("participants.tsv", "participants.json")),
    "label map": Reader(labels, read_map),
    "targets": Reader(targets, read_targets),
    "cohort csv": Reader(cohort, read_cohort),
    "cohort parquet": Reader(lambda f: cohort(f, "parquet"), read_cohort, ("table.parquet",)),
    "plan": Reader(lambda f: plan().write(f / "plan.json"), read_plan),
    "model": Reader(model, read_model),
}


# Changes ---------------------------------------------------------------------------------------------------

EXTREMES = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 0x80000000, 0x7FC00000, 0x7F800000, 0x7F7FFFFF)
WORDS = (
    b"NaN",
    b"-1",
    b"0",
    b"inf",
    b"1e999",
    b"9" * 40,
    b"../../x",
    b"/etc/passwd",
    b"\0",
    b"%s",
    b"\xff\xfe",
    b"\n",
    b"",
)
VALUES: tuple[Any, ...] = (
    7, 100_000, 2**31, None, True, -1, 0, 10**30, 1.5, 1e308, math.nan, math.inf, "", "x", "../../x", "\0", "x" * 5000,
    [], {}, [[]], [None], {"a": 1}, {"": []}, [0, "a"],
)  # fmt: skip


def changed(content: bytes, name: str, draw: random.Random) -> bytes:
    """A damaged version of a file's content."""
    if name.endswith((".json", ".toml")) and draw.random() < 0.6:
        return other_types(content, name, draw)
    if content[:2] == b"\x1f\x8b" and draw.random() < 0.6:
        return gzip.compress(damaged(gzip.decompress(content), draw), mtime=0)
    return damaged(content, draw)


def damaged(content: bytes, draw: random.Random) -> bytes:
    buffer = bytearray(content)
    # Headers stand in front: half of the changes go there.
    end = len(buffer) if draw.random() < 0.5 else min(len(buffer), 400)
    for _ in range(draw.choice((1, 1, 1, 2, 4, 12))):
        if not buffer:
            break
        place = draw.randrange(min(end, len(buffer)))
        kind = draw.randrange(8)
        if kind == 0:
            buffer[place] ^= 1 << draw.randrange(8)
        elif kind == 1:
            buffer[place] = draw.randrange(256)
        elif kind == 2:
            layout = draw.choice(("<B", "<H", ">H", "<I", ">I"))
            number = struct.pack(layout, draw.choice(EXTREMES) & ((1 << 8 * struct.calcsize(layout)) - 1))
            buffer[place : place + len(number)] = number
        elif kind == 3:
            del buffer[place:]
        elif kind == 4:
            del buffer[place : place + draw.randrange(1, 40)]
        elif kind == 5:
            buffer[place:place] = draw.randbytes(draw.randrange(1, 40))
        elif kind == 6:
            word = draw.choice(WORDS)
            buffer[place : place + draw.randrange(8)] = word
        else:
            start = draw.randrange(len(buffer))
            buffer[place:place] = buffer[start : start + draw.randrange(200)]
    return bytes(buffer)


def other_types(content: bytes, name: str, draw: random.Random) -> bytes:
    """JSON or TOML whose entries are gone, new, or of other types."""
    import tomli_w

    table = json.loads(content) if name.endswith(".json") else tomllib.loads(content.decode())
    for _ in range(draw.choice((1, 1, 2, 3))):
        holder: Any = table
        while isinstance(holder, dict | list) and holder:
            keys = list(holder) if isinstance(holder, dict) else range(len(holder))
            key = draw.choice(keys)
            inner = holder[key]
            if not isinstance(inner, dict | list) or not inner or draw.random() < 0.4:
                action = draw.randrange(6)
                if action == 0:
                    del holder[key]
                elif action == 1 and isinstance(holder, dict):
                    holder[draw.choice(("x", "", "classes", "0", "-1", "ignore"))] = copy.deepcopy(draw.choice(VALUES))
                else:
                    holder[key] = copy.deepcopy(draw.choice(VALUES))
                break
            holder = inner
    if name.endswith(".json"):
        return json.dumps(draw.choice(VALUES) if draw.random() < 0.03 else table).encode()
    try:
        return tomli_w.dumps(table).encode()
    except (TypeError, ValueError):  # TOML knows no null
        return damaged(content, draw)


# Running ---------------------------------------------------------------------------------------------------


def one(name: str, number: int, seed: int, sound: Path, place: Path) -> Path:
    """Make input `number` of a reader; gives its folder."""
    draw = random.Random(f"{seed} {name} {number}")
    folder = place / "in"
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(sound, folder)
    wanted = READERS[name].changed
    files = sorted(p for p in folder.rglob("*") if p.is_file() and (not wanted or p.name in wanted))
    path = draw.choice(files)
    path.write_bytes(changed(path.read_bytes(), path.name, draw))
    return folder


def outcome(name: str, folder: Path) -> tuple[str, str]:
    """("read" | "refused" | "failed", why) of one input."""
    names = [str(folder), *(p.stem.split(".")[0] for p in folder.rglob("*"))]
    try:
        READERS[name].read(folder)
    except ShiftproofError as error:
        text = str(error)
        if not any(n in text for n in names):
            return "failed", f"the error names no file: {text[:200]}"
        return ("failed", f"several lines: {text[:300]!r}") if "\n" in text else ("refused", "")
    except TooLong:
        return "failed", "takes too long"
    except Exception as error:
        trace = error.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        where = f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}" if trace else ""
        return "failed", f"{type(error).__name__} in {where}: {str(error)[:160]!r}"
    return "read", ""


def child(name: str, numbers: range, seed: int, seconds: float, sound: Path, place: Path, pipe: int) -> None:
    """Feed inputs, and tell of each by a line."""

    def late(signum: int, frame: Any) -> None:
        raise TooLong

    READERS[name].read(sound)  # what is loaded once does not count
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY, resource.RLIM_INFINITY))
    signal.signal(signal.SIGALRM, late)
    for number in numbers:
        os.write(pipe, json.dumps({"start": number}).encode() + b"\n")
        folder = one(name, number, seed, sound, place)
        before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
        signal.setitimer(signal.ITIMER_REAL, seconds)
        try:
            what, why = outcome(name, folder)
        except TooLong:
            what, why = "failed", "takes too long"
        signal.setitimer(signal.ITIMER_REAL, 0)
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
        line = {"end": number, "what": what, "why": why, "seconds": time.monotonic() - started, "memory": grown}
        os.write(pipe, json.dumps(line).encode() + b"\n")


def batch(name: str, numbers: range, seed: int, seconds: float, sound: Path, place: Path, tally: Tally) -> int:
    """Feed inputs in one process; gives the number to go on with, past one that killed it."""
    out, into = os.pipe()
    process = os.fork()
    if process == 0:
        os.close(out)
        code = 1
        try:
            child(name, numbers, seed, seconds, sound, place, into)
            code = 0
        finally:
            os._exit(code)
    os.close(into)
    current, rest = numbers.start, b""
    while True:
        if not select.select([out], [], [], seconds * 3 + 60)[0]:
            os.kill(process, signal.SIGKILL)
        block = os.read(out, 65536)
        if not block:
            break
        *lines, rest = (rest + block).split(b"\n")
        for line in map(json.loads, lines):
            if "start" in line:
                current = line["start"]
                continue
            current = line["end"] + 1
            tally.inputs += 1
            tally.slowest_s = max(tally.slowest_s, line["seconds"])
            tally.memory = max(tally.memory, line["memory"])
            tally.refused += line["what"] == "refused"
            tally.read += line["what"] == "read"
            if line["what"] == "failed":
                tally.failures.append(f"{name} {line['end']}: {line['why']}")
    os.close(out)
    status = os.waitpid(process, 0)[1]
    if current < numbers.stop:
        tally.inputs += 1
        why = f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"code {os.WEXITSTATUS(status)}"
        tally.failures.append(f"{name} {current}: the process died ({why})")
        current += 1
    return current


def feed(name: str, inputs: int, seed: int, seconds: float, keep: Path | None = None) -> Tally:
    """So many inputs for one reader."""
    tally = Tally()
    with tempfile.TemporaryDirectory() as scratch:
        sound, place = Path(scratch) / "sound", Path(scratch) / "place"
        sound.mkdir()
        READERS[name].make(sound)
        number = 0
        while number < inputs:
            number = batch(name, range(number, min(number + BATCH, inputs)), seed, seconds, sound, place, tally)
        for failure in tally.failures if keep else ():
            number = int(failure.split(":")[0].rsplit(" ", 1)[1])
            shutil.copytree(one(name, number, seed, sound, place), keep / f"{name}-{number}", dirs_exist_ok=True)
    return tally


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=10_000, help="Of all readers together.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--readers", default=",".join(READERS))
    parser.add_argument("--seconds", type=float, default=20.0, help="That an input may take.")
    parser.add_argument("--keep", type=Path, help="Folder for the inputs that failed.")
    given = parser.parse_args()
    names = [name.strip() for name in given.readers.split(",")]
    print(", ".join(f"{k} {v}" for k, v in versions().items()))
    print(f"{'reader':16}{'inputs':>8}{'refused':>9}{'read':>7}{'failed':>8}{'slowest s':>11}{'memory MB':>11}")
    failures: list[str] = []
    total = 0
    for i, name in enumerate(names):
        share = given.inputs // len(names) + (i < given.inputs % len(names))
        tally = feed(name, share, given.seed, given.seconds, given.keep)
        total, failures = total + tally.inputs, failures + tally.failures
        print(
            f"{name:16}{tally.inputs:8}{tally.refused:9}{tally.read:7}{len(tally.failures):8}"
            f"{tally.slowest_s:11.2f}{tally.memory / 1e6:11.0f}",
            flush=True,
        )
    print(f"{total} inputs, {len(failures)} failures")
    print("\n".join(failures[:50]))
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
