"""Relaxations on more than one processor: batches, processes, clusters.

    station     a worker's side: a model, and the relaxations that share its batches
    crew        the driver's side: who has which relaxation, and lost workers
    processes   a crew of processes on this machine
    ray_cluster a crew of Ray actors

`together` and `Crew` are runners for `crack_md.workflows.screening.screen.screen`. Results come
back to the driver, which alone writes them.
"""
