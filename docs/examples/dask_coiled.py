"""Run an archive on Coiled.

python dask_coiled.py ARCHIVE RECIPE OUT
The paths must be those of a file system that the workers mount, such as a bucket mounted by the software environment.
"""

import sys

import coiled

import geococa

if __name__ == "__main__":
    archive, recipe, out = sys.argv[1:]
    with (
        coiled.Cluster(n_workers=16, worker_cpu=4, worker_memory="16 GiB", software="geococa") as cluster,
        cluster.get_client() as client,  # Coiled's own connections are encrypted
    ):
        result = geococa.run_archive(archive, recipe, out=out, scheduler=client, threads=4)
    sys.exit(3 if result.failed else 0)
