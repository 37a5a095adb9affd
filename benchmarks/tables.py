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
    if "(own " in peer["name"]:
        return "another model"
    found = peer["agreement"]
    if "probabilities" in case["case"] or found < 0.5:
        return f"within {found:.0e}"
    return "all" if found == 1 else f"{100 * found:.4f} %"


def zonal(record: dict) -> str:
    """Markdown of results/zonal.json: seconds of each tool, and how much faster geococa is on one and two threads."""
    lines = [
        "| polygons | tool | wall, s | geococa on 1 thread | on 2 threads | largest difference |",
        "|---|---|---|---|---|---|",
    ]
    for name, family in record["families"].items():
        wall = family["wall_s"]
        for tool, seconds in wall.items():
            ratios = " | ".join(
                "" if tool.startswith("geococa") else f"{seconds / wall[f'geococa, {own}']:.1f}x"
                for own in ("1 thread", "2 threads")
            )
            gap = f"{family['difference'][tool]:.0e}" if tool in family["difference"] else ""
            what = (
                f"{name}: {family['zones']:,} with {family['vertices']:,} vertices" if tool == next(iter(wall)) else ""
            )
            lines.append(f"| {what} | {tool} | {seconds:.3f} | {ratios} | {gap} |")
    machine = record["machine"]
    load = f"load {machine['load'][0]:.1f} on {machine['processors']} processors"
    lines += [
        "",
        f"{record['cells'][0]} x {record['cells'][1]} cells, Python {machine['python']}, {load}, {record['date']}.",
    ]
    return "\n".join(lines)


def composites(record: dict) -> str:
    """Markdown of results/composites.json."""
    lines = ["| case | Mpx/s | times as fast as |", "|---|---|---|"]
    for case in record["median"]:
        rates = case["mpx_per_s"]
        for own in ("geococa kernel", "geococa.composite"):
            ratio = f"bottleneck **{case['times_bottleneck'][own]:.1f}**, numpy {case['times_numpy'][own]:.0f}"
            lines.append(
                f"| median of {case['dates']} dates x {case['bands']} bands, {own} | {rates[own]:.2f} | {ratio} |"
            )
    for case in record["geomedian"]:
        ratio = ", ".join(f"{peer} **{value:.0f}**" for peer, value in case["times_peer_per_thread"].items())
        rate = case["mpx_per_s"]["geococa"]
        lines.append(f"| geometric median of {case['dates']} dates x {case['bands']} bands | {rate:.2f} | {ratio} |")
    lines += [
        "",
        f"One thread; medians are numpy's to the bit. numpy {record['numpy']}, bottleneck {record['bottleneck']}.",
    ]
    return "\n".join(lines)


def fractions(record: dict) -> str:
    """Markdown of results/fractions.json."""
    lines = [
        "| features | cells | method | total hectares off | error per 450 m square |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['inputs']} | {row['cell_m']} m | {row['method']} | {row['error_percent']:+.1f} % | {row['square_rmse_ha']:.2f} ha |"
        for row in record["squares"]
    ]
    return "\n".join(lines)


SHAPES = {"zonal": zonal, "composites": composites, "fractions": fractions}


def fill(text: str) -> str:
    """Replace every marked table by that of its file."""

    def replace(match: re.Match[str]) -> str:
        path = FOLDER / "results" / f"{match[1]}.json"
        made = SHAPES.get(match[1], table)(json.loads(path.read_text(encoding="utf-8")))
        return f"<!-- {match[1]} -->\n\n{made}\n\n<!-- end -->"

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
