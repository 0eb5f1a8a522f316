#!/bin/bash
# Screen a file of slabs on one node, by processes that share its cores and GPUs.
#
#     sbatch examples/slurm/screen.sh surfaces.db results
#
# Submit it again with the same folder and it goes on where it stopped; a relaxation in
# flight is all that a kill costs. Without GPUs drop the line with --gpus-per-node.
#SBATCH --job-name=screen
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=32
#SBATCH --gpus-per-node=4
#SBATCH --time=04:00:00
#SBATCH --output=%x-%j.log

set -euo pipefail
SLABS=${1:?name a file of slabs: sbatch examples/slurm/screen.sh SLABS FOLDER}
FOLDER=${2:?name a folder for results: sbatch examples/slurm/screen.sh SLABS FOLDER}
# one process for each GPU; without GPUs one for every four cores
WORKERS=${SLURM_GPUS_ON_NODE:-$((SLURM_CPUS_PER_TASK / 4))}

crack-md doctor
crack-md screen "$SLABS" --out "$FOLDER" --workers "$WORKERS"
