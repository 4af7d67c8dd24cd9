"""Write the digests of every subject of digit-sites at every size, and print the content hashes.

python benchmarks/freeze_digit_sites.py

Run once, before any method is compared on the scenario; a change of its output means a new scenario.
"""

from __future__ import annotations

import json
from pathlib import Path

from shiftproof.scenarios import get

FILE = Path(__file__).parents[1] / "shiftproof" / "scenarios" / "files" / "digit_sites_digests.json"


def main() -> None:
    scenario = get("digit-sites")
    digests = {}
    for size in scenario.sizes:
        wanted = [(site, i) for site in scenario.sites for i in range(scenario.usual_subjects[size])]
        scans = (scenario.subject(site, i, size=size, seed=0) for site, i in wanted)
        digests[size] = {scan.subject: scan.digest() for scan in scans}
        print(f'    "{size}": "{scenario.content_hash(digests[size].items())}",', flush=True)
    FILE.write_text(json.dumps(digests, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
