"""Write the digests of every subject of chest-ct-sites at every size, and print the content hashes.

python benchmarks/freeze_chest_ct_sites.py [--workers 2]

Run once, before any method is compared on the scenario; a change of its output means a new scenario.
"""

from __future__ import annotations

import argparse
import json
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from shiftproof.scenarios.chest_ct_sites import SCENARIO

FILE = Path(__file__).parents[1] / "shiftproof" / "scenarios" / "files" / "chest_ct_sites_digests.json"
SUBJECTS, SEED = 24, 0


def digest(which: tuple[str, str, int]) -> tuple[str, str]:
    size, site, index = which
    scan = SCENARIO.subject(site, index, size=size, seed=SEED)
    return scan.subject, scan.digest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=None)
    digests = {}
    with ProcessPoolExecutor(parser.parse_args().workers, mp_context=get_context("spawn")) as pool:
        for size in SCENARIO.sizes:
            wanted = [(size, site, i) for site in SCENARIO.sites for i in range(SUBJECTS)]
            digests[size] = dict(pool.map(digest, wanted))
            print(f'    "{size}": "{SCENARIO.content_hash(digests[size].items())}",', flush=True)
    FILE.write_text(json.dumps(digests, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
