"""Relaxations on more than one processor: batches, processes, clusters.

    driver      the process that hands out relaxations and replaces lost workers
    processes   workers that are processes on this machine
    ray_cluster workers that are Ray actors

A worker is a `RelaxationWorker`: a model, and relaxations that share its batches.
`batched_runner` and `Driver` are runners for `crack_md.workflows.screening.screen`.
Results come back to the driver, which alone writes them.
"""
