"""The commands of a run: start or resume it, and look at it from another terminal."""

from __future__ import annotations

import json
import logging
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from geococa.command_parts import PATH, Command, known_output, print_table
from geococa.interrupts import prompt_interrupts
from geococa.run_lock import hold_folder, owner_of, runs_here
from geococa.run_progress import JsonLines, json_line, show_progress, span

if TYPE_CHECKING:
    from geococa.archive import ArchiveResult

__all__ = ["FAILED_TILES", "print_summary", "run", "status"]

FAILED_TILES = 3


@click.command(cls=Command)
@click.argument("archive", type=PATH)
@click.option("--recipe", required=True, type=PATH, help="Settings of every stage (TOML).")
@click.option("--out", required=True, type=PATH, help="Output folder; a second run resumes there.")
@click.option(
    "--workers", type=click.IntRange(1), help="Processes over tiles; by default chosen from processors and memory."
)
@click.option("--threads", type=click.IntRange(1), help="Threads a worker; by default the processors shared out.")
@click.option("--memory", help="Memory for all workers together, such as 8GB; kept to, and enforced on Linux.")
@click.option("--scheduler", help="Dask scheduler: its address, its scheduler file, or local.")
@click.option("--open-network", is_flag=True, help="Use a scheduler on another machine although it has no TLS.")
@click.option("--verify", "verify_inputs", is_flag=True, help="Know inputs by SHA-256 rather than by size and time.")
@click.option("--dry-run", is_flag=True, help="Print what would be computed and why, and stop.")
@click.option("--log", "style", type=click.Choice(["text", "json"]), default="text", show_default=True, help="Form of progress and log on stderr.")  # fmt: skip
@click.option("--log-interval", default=10.0, show_default=True, type=click.FloatRange(0), help="Seconds between two lines of progress where there is no terminal.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.pass_context
def run(
    ctx: click.Context,
    /,
    archive: Path,
    recipe: Path,
    out: Path,
    dry_run: bool,
    style: Literal["text", "json"],
    log_interval: float,
    as_json: bool,
    **how: Any,
) -> None:
    """Run the whole pipeline over an archive of tiles: maps, hectares, trends and the report.

    What is finished is kept: the same command resumes after an error, Ctrl-C or a power cut, and computes only what is
    missing or whose inputs and settings changed. See docs/archives.md.

    Example:  geococa run sample_tiles --recipe sample_tiles/recipe.toml --out out/run
    """
    if style == "json":
        for handler in logging.getLogger().handlers:
            handler.setFormatter(JsonLines())
    if dry_run:
        from geococa.archive import plan_archive

        print_table(plan_archive(archive, recipe, out, verify_inputs=how["verify_inputs"]).tasks, as_json)
        return
    began = time.monotonic()
    quiet = ctx.obj["quiet"]
    # held before the libraries are loaded, so that a second job is turned away at once
    with prompt_interrupts(), hold_folder(out) as held:
        from geococa.archive import run_archive

        with show_progress(quiet, style=style, interval_s=log_interval) as progress:
            result = run_archive(archive, recipe, out=held, progress=progress, **how)
        print_summary(result, as_json)
        if style == "json" and not quiet:
            entry = {"computed": len(result.computed), "reused": len(result.reused), "failed": result.failed}
            seconds = round(time.monotonic() - began, 1)
            click.echo(json_line({"level": "info", "event": "finished", "seconds": seconds, **entry}), err=True)
    if result.failed:
        ctx.exit(FAILED_TILES)


@click.command(cls=Command)
@click.argument("out", type=PATH)
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def status(out: Path, as_json: bool) -> None:
    """Show how far a run is, which of its tasks are done or failed, and why; also while it runs.

    The table goes to stdout, how the job stands to stderr.

    Example:  geococa status out/run
    """
    from geococa.ledger import Ledger

    known_output(out)
    with Ledger.peek(out) as ledger:
        table, stand, busy = ledger.tasks(), ledger.progress(), ledger.activity()
    running = None if (owner := owner_of(out)) is None else runs_here(owner)
    if owner is not None:
        words = {True: "running", False: "killed", None: "held"}[running]
        click.echo(f"{words}: process {owner['pid']} on {owner['host']} since {owner['since']}", err=True)
    if stand is not None:
        click.echo(_stand(stand), err=True)
    if running is not False:
        for row in busy.to_dict("records"):
            again = f", attempt {row['attempt']}" if row["attempt"] > 1 else ""
            click.echo(f"  {row['what']} {row['item']} for {span(time.time() - row['since'])}{again}", err=True)
    counts = Counter(f"{row['stage']} {row['status']}" for row in table.to_dict("records"))
    click.echo("; ".join(f"{what}: {count}" for what, count in sorted(counts.items())), err=True)
    print_table(table, as_json)


def _stand(stand: dict[str, Any]) -> str:
    text = f"{stand['what']}: {stand['done']} of {stand['total']}"
    took = stand["updated"] - stand["started"]
    if took > 0 and 0 < stand["done"] < stand["total"]:
        rate = stand["done"] / took
        text += f", {60 * rate:.3g} a minute, {span((stand['total'] - stand['done']) / rate)} left"
    return f"{text} ({span(max(time.time() - stand['updated'], 0))} ago)"


def print_summary(result: ArchiveResult, as_json: bool) -> None:
    """Say what a run found, what failed, and where the report is."""
    found = result.outputs
    if as_json:
        summary = {
            "out": str(result.out),
            "report": str(found.report),
            "computed": result.computed,
            "reused": result.reused,
            "failed": result.failed,
            "trends": json.loads(found.trends.to_json(orient="records")),
        }
        click.echo(json.dumps(summary, indent=2))
        return
    click.echo(found.text())
    click.echo(f"\n{len(result.computed)} tiles computed, {len(result.reused)} reused, {len(result.failed)} failed")
    for tile, reason in result.failed.items():
        click.echo(f"  {tile}: {reason}", err=True)
    if result.failed:
        click.echo(
            "the ground of failed tiles counts as unobserved; mend them and run the same command again", err=True
        )
    click.echo(f"open {found.report}")
