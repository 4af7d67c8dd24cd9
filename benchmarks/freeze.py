"""Write the digests of every subject of a scenario at every size, and print the content hashes.

python benchmarks/freeze.py SCENARIO [--workers 2]

Run once, before any method is compared on the scenario; a change of its output means a new scenario.
"""

from __future__ import annotations

import argparse
import json
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from shiftproof.scenarios import MODULES, get
from shiftproof.scenarios.scenario import USUAL

FILES = Path(__file__).parents[1] / "shiftproof" / "scenarios" / "files"
SEED = 0


def digest(which: tuple[str, str, str, int]) -> tuple[str, str]:
    name, size, site, index = which
    scan = get(name).subject(site, index, size=size, seed=SEED)
    return scan.subject, scan.digest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scenario", choices=list(MODULES))
    parser.add_argument("--workers", type=int, default=None)
    parser.add_argument("--out", type=Path, default=None, help="Another file than the scenario's own.")
    options = parser.parse_args()
    name, scenario = options.scenario, get(options.scenario)
    digests = {}
    with ProcessPoolExecutor(options.workers, mp_context=get_context("spawn")) as pool:
        for size in scenario.sizes:
            number = scenario.usual_subjects.get(size, USUAL)
            wanted = [(name, size, site, i) for site in scenario.sites for i in range(number)]
            digests[size] = dict(pool.map(digest, wanted, chunksize=4))
            print(f'    "{size}": "{scenario.content_hash(digests[size].items())}",', flush=True)
    file = options.out or FILES / f"{name.replace('-', '_')}_digests.json"
    file.write_text(json.dumps(digests, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
