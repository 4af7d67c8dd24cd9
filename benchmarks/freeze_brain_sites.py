"""Write the digests of every subject of brain-sites at every size, and print the content hashes.

python benchmarks/freeze_brain_sites.py

Run once, before any method is compared on the scenario; a change of its output means a new scenario.
"""

from __future__ import annotations

import json
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from shiftproof.scenarios import get

FILE = Path(__file__).parents[1] / "shiftproof" / "scenarios" / "files" / "brain_sites_digests.json"
SUBJECTS, SEED = 24, 0


def digest(which: tuple[str, str, int]) -> tuple[str, str]:
    size, site, index = which
    scan = get("brain-sites").subject(site, index, size=size, seed=SEED)
    return scan.subject, scan.digest()


def main() -> None:
    scenario = get("brain-sites")
    digests = {}
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        for size in scenario.sizes:
            wanted = [(size, site, i) for site in scenario.sites for i in range(SUBJECTS)]
            digests[size] = dict(pool.map(digest, wanted))
            print(f'    "{size}": "{scenario.content_hash(digests[size].items())}",', flush=True)
    FILE.write_text(json.dumps(digests, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
