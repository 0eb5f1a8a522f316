#!/bin/bash
# Screen on several nodes: a Ray cluster is started, used and ends with the job.
#
#     sbatch examples/slurm/ray.sh surfaces.db results
#
# Needs pip install 'crack-md[ray]' in the same environment on all nodes. The first node
# writes the results; submit the job again and it goes on where it stopped.
#SBATCH --job-name=screen-ray
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=32
#SBATCH --gpus-per-node=4
#SBATCH --time=04:00:00
#SBATCH --output=%x-%j.log

set -euo pipefail
SLABS=${1:?name a file of slabs: sbatch examples/slurm/ray.sh SLABS FOLDER}
FOLDER=${2:?name a folder for results: sbatch examples/slurm/ray.sh SLABS FOLDER}
HEAD=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
PORT=$((20000 + SLURM_JOB_ID % 10000)) # two jobs may share a node
GPUS=${SLURM_GPUS_ON_NODE:-0}

start() { # NODES, then options of ray start
    srun --nodes="$1" --ntasks="$1" --overlap "${@:2}" \
        --num-cpus="$SLURM_CPUS_PER_TASK" --num-gpus="$GPUS" --block &
}
start 1 --nodelist="$HEAD" ray start --head --port="$PORT"
sleep 20 # until the head listens
if [ "$SLURM_NNODES" -gt 1 ]; then
    start $((SLURM_NNODES - 1)) --exclude="$HEAD" ray start --address="$HEAD:$PORT"
    sleep 20
fi

# four workers on each GPU
crack-md screen "$SLABS" --out "$FOLDER" --ray "$HEAD:$PORT" --gpus-per-worker 0.25
