"""Put measured figures where people read them: python benchmarks/tables.py [--check].

Each ``results/<name>.json`` becomes the table between ``<!-- <name> -->`` and ``<!-- end -->`` in README.md and
benchmarks/README.md, wherever they have such marks. With ``--check`` nothing is written, and the exit code is 1 where a
table is not that of its file.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

FOLDER = Path(__file__).parent
PAGES = (FOLDER.parent / "README.md", FOLDER / "README.md")


def table(results: dict) -> str:
    """Markdown of one file of results: a row a case, the peers side by side."""
    machine = results["machine"]
    lines = ["| case | geococa | times as fast as (lowest to highest round) | same answer |", "|---|---|---|---|"]
    for case in results["cases"]:
        own, *peers = case["lines"]
        depth = f", {case['decisions_per_pixel']:,.0f} decisions a pixel" if case.get("decisions_per_pixel") else ""
        ratios = "<br>".join(
            f"{peer['name']} **{peer['ratio']:.1f}** ({peer['ratio_low']:.1f} to {peer['ratio_high']:.1f})"
            for peer in peers
        )
        same = "<br>".join(agreement(peer, case) for peer in peers)
        rate = f"{own['mpx_s']:.2f} Mpx/s" if "mpx_s" in own else f"{own['seconds']:.2f} s"
        lines.append(f"| {case['case']}{depth} | {rate} | {ratios} | {same} |")
    ram = f", {machine['note']}" if machine.get("note") else ""
    lines += [
        "",
        f"{machine['processor']}, {machine['threads']} threads, Python {machine['python']}, {machine['date']}{ram}.",
    ]
    return "\n".join(lines)


def agreement(peer: dict, case: dict) -> str:
    """What the comparison of answers found, in words."""
    if "own" in peer["name"]:
        return "another model"
    found = peer["agreement"]
    if "probabilities" in case["case"] or found < 0.5:
        return f"within {found:.0e}"
    return "all" if found == 1 else f"{100 * found:.4f} %"


def fill(text: str) -> str:
    """Replace every marked table by that of its file."""

    def replace(match: re.Match[str]) -> str:
        path = FOLDER / "results" / f"{match[1]}.json"
        return f"<!-- {match[1]} -->\n\n{table(json.loads(path.read_text()))}\n\n<!-- end -->"

    return re.sub(r"<!-- (\w+) -->.*?<!-- end -->", replace, text, flags=re.DOTALL)


def main() -> int:
    stale = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        if (filled := fill(text)) != text:
            stale.append(page.name)
            if "--check" not in sys.argv:
                page.write_text(filled, encoding="utf-8")
    if stale and "--check" in sys.argv:
        print(f"tables differ from results/ in {', '.join(stale)}; run python benchmarks/tables.py", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
