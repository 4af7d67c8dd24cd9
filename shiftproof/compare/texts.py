"""Text tables from anywhere: any usual delimiter and encoding, every cell as text; a clear word on what is no table."""

from __future__ import annotations

import csv
import io
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import RunError

if TYPE_CHECKING:
    import pandas as pd

LARGEST = 1_000_000_000  # bytes; scores of a million subjects and ten methods take half of it
DELIMITERS = ",;\t|"
EXPECTED = "a CSV or TSV file with a header and columns for subject, method and value"


def read_text_table(path: Path) -> tuple[pd.DataFrame, list[str]]:
    """The cells of a table as text without surrounding space, "" where nothing is, and what had to be said of it.

    Raises:
        RunError: If the file is missing, empty, too large or no text table, or has two columns of the same name.
    """
    text, notes = decoded(path)
    lines = text.lstrip("\n").splitlines()
    if not lines:
        raise RunError(f"{path} is empty, expected {EXPECTED}")
    delimiter = max(DELIMITERS, key=lines[0].count)
    if not lines[0].count(delimiter):
        raise RunError(f"{path} is no table: its first line is {shortened(lines[0])}; expected {EXPECTED}")
    header = [name.strip() for name in next(csv.reader([lines[0]], delimiter=delimiter))]
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise RunError(
            f'{path}: column "{twice[0]}" occurs {header.count(twice[0])} times; rename or remove the others'
        )
    table = parsed(path, text.lstrip("\n"), header, delimiter)
    if table.empty:
        raise RunError(f"{path} has a header and no line below it, expected {EXPECTED}")
    if delimiter in ";\t":  # where spreadsheets write decimal commas
        table = table.replace(r"^\s*(-?\d+),(\d+)\s*$", r"\1.\2", regex=True)
    return table, notes


def parsed(path: Path, text: str, header: list[str], delimiter: str) -> pd.DataFrame:
    import pandas as pd

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # a line that is longer than the header
            table = pd.read_csv(
                io.StringIO(text), sep=delimiter, header=0, names=header, index_col=False, dtype=str,
                keep_default_na=False, na_values=[], skipinitialspace=True,
            )  # fmt: skip
    except (ValueError, pd.errors.ParserError, pd.errors.ParserWarning) as error:
        why = " ".join(str(error).split()).removeprefix("Error tokenizing data. C error: ")
        if "Length of header" in why:
            why = f"lines have more cells than the header's {len(header)}"
        raise RunError(f"{path} is no readable table: {why}; put quotes around cells with a delimiter") from None
    return table.fillna("").map(str.strip)  # a line that is too short ends in nothing


def decoded(path: Path) -> tuple[str, list[str]]:
    """The text of a file; what is not Unicode is taken for the code page of Western spreadsheets, and said."""
    try:
        if path.stat().st_size > LARGEST:
            size = path.stat().st_size / 1e9
            raise RunError(f"{path} has {size:.1f} GB, expected scores of at most {LARGEST / 1e9:.0f} GB")
        content = path.read_bytes()
    except FileNotFoundError:
        raise RunError(f"{path} does not exist; expected a study folder, rows.csv or {EXPECTED}") from None
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}") from None
    if content.startswith((b"PK\x03\x04", b"\xd0\xcf\x11\xe0")):
        raise RunError(f"{path} is a spreadsheet or an archive; save the table as CSV")
    utf16 = content.startswith((b"\xff\xfe", b"\xfe\xff"))
    if b"\x00" in content[:100_000] and not utf16:
        raise RunError(f"{path} is no text, expected {EXPECTED}")
    try:
        return content.decode("utf-16" if utf16 else "utf-8-sig").replace("\r\n", "\n").replace("\r", "\n"), []
    except UnicodeDecodeError:
        text = content.decode("cp1252", errors="replace").replace("\r\n", "\n").replace("\r", "\n")
        return text, [f"{path.name} is not in UTF-8; it was read as Windows-1252"]


def shortened(text: str, most: int = 40) -> str:
    return f'"{text}"' if len(text) <= most else f'"{text[:most]}..."'
