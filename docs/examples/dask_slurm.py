"""Run an archive on a SLURM cluster with dask-jobqueue.

python dask_slurm.py ARCHIVE RECIPE OUT
Archive, recipe and output folder must lie on a file system that every node sees under the same path.
"""

import sys

from dask_jobqueue import SLURMCluster
from distributed.security import Security

import geococa


def main(archive: str, recipe: str, out: str) -> None:
    """Start 16 jobs of 4 workers, run the archive on them, and let them go."""
    cluster = SLURMCluster(
        queue="normal",
        walltime="12:00:00",
        cores=4,
        processes=4,
        memory="16GB",
        interface="ib0",
        # certificates made for this cluster alone: whoever reaches a scheduler without them could run programs on its workers
        security=Security.temporary(),
        # keep Dask's own files off the shared disk
        local_directory="$TMPDIR",
    )
    cluster.scale(jobs=16)
    with cluster.get_client() as client:
        result = geococa.run_archive(archive, recipe, out=out, scheduler=client, threads=1)
    sys.stdout.write(result.outputs.text() + "\n")
    for tile, reason in result.failed.items():
        sys.stderr.write(f"{tile} {reason}\n")
    sys.exit(3 if result.failed else 0)


if __name__ == "__main__":
    main(*sys.argv[1:])
