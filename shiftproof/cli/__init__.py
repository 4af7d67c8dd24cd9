"""The command line: one file a command, each a thin shell over one function. Nothing heavy is imported here."""

from __future__ import annotations

import sys


def main() -> None:
    """Entry point; bad input ends with one line and exit code 2, an interruption with 130."""
    from ..errors import ShiftproofError
    from .app import app

    try:
        app()
    except ShiftproofError as error:
        print(f"shiftproof: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("\ninterrupted; the same command goes on where this stopped", file=sys.stderr)
        raise SystemExit(130) from None
    except BrokenPipeError:
        raise SystemExit(0) from None
