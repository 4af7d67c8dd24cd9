"""The command line: one file a command, each a thin shell over one function. Nothing heavy is imported here."""

from __future__ import annotations

import contextlib
import signal
import sys

INTERRUPTED = 130


def main() -> None:
    """Entry point; bad input ends with one line and exit code 2, an interruption with `INTERRUPTED`."""
    from ..errors import ShiftproofError
    from .app import app

    with contextlib.suppress(ValueError):  # outside of the main thread
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # a scheduler's Ctrl-C
    try:
        app()
    except ShiftproofError as error:
        print(f"shiftproof: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except (KeyboardInterrupt, SystemExit) as ended:
        # Typer turns an interruption into a code of its own.
        if isinstance(ended, SystemExit) and ended.code != INTERRUPTED:
            raise
        print("\ninterrupted; the same command goes on where this stopped", file=sys.stderr)
        raise SystemExit(INTERRUPTED) from None
    except BrokenPipeError:
        raise SystemExit(0) from None
