"""Dask: the same bytes, whatever happens to its workers, and nobody else can reach it."""

from __future__ import annotations

import os
import random
import signal
import threading
import time

import pytest

from geococa.archive import run_archive
from geococa.run_resources import Resources
from tests.reliability.tiny_archives import results, tell

pytest.importorskip("distributed")
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def cluster():
    from geococa.run_workers import local_cluster

    with local_cluster(Resources(2, 1, 512)) as made:
        yield made


def run_and_kill(six_tiles, cluster, out, kills, seed):
    """Run on a cluster whose workers are killed at random moments; return how many were."""
    import dask

    archive, expected, seconds = six_tiles
    chance, killed, ended = random.Random(seed), [0], threading.Event()

    def kill():
        while killed[0] < kills and not ended.wait(chance.uniform(0, seconds / 2)):
            pids = [nanny.pid for nanny in cluster.workers.values() if nanny.pid]
            if pids:
                os.kill(chance.choice(pids), signal.SIGKILL)
                killed[0] += 1
                # another kill of the same task within its allowed failures
                ended.wait(2)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        with dask.config.set({"distributed.scheduler.allowed-failures": 100}):
            result = run_archive(archive, archive / "recipe.toml", out=out, scheduler=cluster.scheduler_address)
    finally:
        ended.set()
        killer.join()
    assert result.failed == {}
    assert results(out) == expected
    return killed[0]


def test_a_cluster_of_this_machine_is_reached_from_this_machine_only(cluster):
    import psutil

    assert cluster.scheduler_address.startswith("tcp://127.0.0.1:")
    listening = [c.laddr.ip for c in psutil.Process().net_connections("tcp") if c.status == "LISTEN"]
    assert listening
    assert set(listening) <= {"127.0.0.1", "::1"}


def test_a_killed_dask_worker_changes_no_byte(six_tiles, cluster, tmp_path):
    assert run_and_kill(six_tiles, cluster, tmp_path / "out", 1, seed=2) == 1


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_fifty_killed_dask_workers(six_tiles, cluster, tmp_path):
    cluster.scheduler.allowed_failures = 100
    kills, done, rounds, began = int(os.environ.get("GEOCOCA_DASK_KILLS", "50")), 0, 0, time.monotonic()
    while done < kills:
        done += run_and_kill(six_tiles, cluster, tmp_path / f"out{rounds}", min(3, kills - done), seed=rounds)
        rounds += 1
    tell(f"{done} workers killed in {rounds} runs, {time.monotonic() - began:.0f} s, the same bytes every time")
