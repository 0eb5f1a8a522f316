"""Relaxations on more than one processor: batches, processes, clusters.

    worker      one worker: a model, and the relaxations that share its batches
    driver      the process that hands out relaxations and replaces lost workers
    processes   workers that are processes on this machine
    ray_cluster workers that are Ray actors

`run_batched` and `Driver` are runners for `crack_md.workflows.screening.screen`.
Results come back to the driver, which alone writes them.
"""
