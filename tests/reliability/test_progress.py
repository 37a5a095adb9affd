"""How far, how fast, how long: the same numbers for people and for programs."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from geococa.cli import main
from geococa.run_lock import hold_folder, owner_of, runs_here
from geococa.run_progress import Meter, json_line, show_progress, span


def test_throughput_and_time_left_follow_the_clock():
    now = [100.0]
    meter = Meter(lambda: now[0])
    assert meter.step("tiles", 0, 10)["left_s"] is None
    now[0] += 30
    state = meter.step("tiles", 1, 10)
    assert (state["per_minute"], state["left_s"]) == (2.0, 270.0)
    now[0] += 30
    assert meter.step("tiles", 4, 10)["left_s"] == 90.0
    # what was slow an hour ago does not count
    now[0] += 3600
    meter.step("tiles", 5, 10)
    now[0] += 60
    assert meter.step("tiles", 8, 10)["left_s"] < 600
    assert meter.step("next stage", 0, 3)["per_minute"] is None


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "0 s"), (99, "99 s"), (100, "1 min"), (5999, "99 min"), (6000, "1 h 40 min")]
)
def test_times_that_people_read(seconds, text):
    assert span(seconds) == text


def test_lines_where_there_is_no_terminal(capsys):
    with show_progress(False, interval_s=0) as show:
        show("classifying tiles", 1, 4)
        show("classifying tiles", 4, 4)
    assert capsys.readouterr().err.splitlines()[0].startswith("classifying tiles: 1 of 4")
    with show_progress(False, interval_s=3600) as show:
        for done in range(5):
            show("classifying tiles", done, 4)
    # the first, and the last since it says that all is done
    assert len(capsys.readouterr().err.splitlines()) == 2
    with show_progress(True) as show:
        assert show is None


def test_json_lines_can_be_read_one_by_one(capsys):
    with show_progress(False, style="json", interval_s=0) as show:
        show("classifying tiles", 1, 4)
        show("classifying tiles", 2, 4)
    entries = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [entry["done"] for entry in entries] == [1, 2]
    assert {"time", "level", "event", "what", "total", "per_minute", "left_s"} <= set(entries[0])
    assert json.loads(json_line({"event": "x"}))["event"] == "x"


def test_a_run_in_json_says_what_failed_and_status_tells_the_same(six_tiles, tmp_path):
    from tests.reliability.tiny_archives import copy_of, zero_bytes

    archive = copy_of(six_tiles[0], tmp_path / "archive")
    zero_bytes(archive / "T0002")
    out = tmp_path / "out"
    given = ["run", str(archive), "--recipe", str(archive / "recipe.toml"), "--out", str(out), "--log", "json"]
    done = CliRunner().invoke(main, [*given, "--log-interval", "0", "--workers", "1"])
    assert done.exit_code == 3
    entries = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
    assert entries[-1]["event"] == "finished"
    assert list(entries[-1]["failed"]) == ["T0002"]
    assert {entry["what"] for entry in entries if entry["event"] == "progress"} >= {
        "classifying tiles",
        "measuring hectares",
    }
    told = CliRunner().invoke(main, ["status", str(out), "--json"])
    rows = json.loads(told.stdout)
    assert [row["item"] for row in rows if row["status"] == "failed"] == ["T0002"]
    assert "maps done: 5" in told.stderr
    assert "maps failed: 1" in told.stderr


def test_who_holds_a_folder_is_known_while_it_is_held(tmp_path):
    with hold_folder(tmp_path / "out"):
        assert runs_here(owner_of(tmp_path / "out")) is True
    assert owner_of(tmp_path / "out") is None
    assert not (tmp_path / "out").exists(), "a job that wrote nothing leaves nothing"
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / ".lock.owner").write_text('{"pid": 4194399, "host": "elsewhere", "since": "2026-01-01"}')
    assert runs_here(owner_of(tmp_path / "old")) is None
