"""The command line: data on stdout, one line of remedy on stderr, the right exit code."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from geococa.cli import main


@pytest.fixture
def call():
    runner = CliRunner()
    return lambda *arguments: runner.invoke(main, [str(argument) for argument in arguments])


@pytest.mark.parametrize("command", sorted(main.commands))
def test_every_command_has_help_with_an_example(call, command):
    done = call(command, "--help")
    assert done.exit_code == 0
    assert f"geococa {command}" in done.stdout.split("Example:")[1]


def test_a_misspelt_command_gets_a_suggestion(call):
    done = call("arreas")
    assert done.exit_code == 2
    assert "Did you mean 'areas'?" in done.stderr


def test_versions_are_printed_as_json(call):
    found = json.loads(call("versions", "--json").stdout)
    assert {"python", "geococa", "numba", "gdal", "proj"} <= set(found)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["run", "nowhere", "--recipe", "none.toml", "--out", "out"], 2, "no recipe at none.toml"),
        (["status", "nowhere"], 4, "not the output folder of a run"),
        (["verify", "nowhere"], 4, "not the output folder of a run"),
        (["areas", "none.tif", "--zones", "z.gpkg"], 4, "none.tif"),
        (["trends", "none.csv"], 4, "none.csv"),
        (["simulate", "a", "--years", "2020-2018"], 2, "before the first"),
        (["simulate", "a", "--years", "some"], 2, "expected years such as"),
        (["init", "nowhere", "--recipe", "r.toml"], 4, "nowhere"),
        (["report", "nowhere"], 4, "nowhere"),
        (["areas"], 2, "Missing argument"),
    ],
)
def test_a_wrong_call_says_what_is_wrong_and_leaves_nothing(call, tmp_path, monkeypatch, arguments, code, message):
    monkeypatch.chdir(tmp_path)
    done = call(*arguments)
    assert done.exit_code == code, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
