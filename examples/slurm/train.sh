#!/bin/bash
# Train a student on the GPUs of one or more nodes, one process for each GPU.
#
#     sbatch examples/slurm/train.sh configs/student_orr_1.yaml
#
# A job that is stopped or requeued goes on where it was: the command is the same, and
# the number of processes may change.
#SBATCH --job-name=student
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=8
#SBATCH --time=12:00:00
#SBATCH --requeue
#SBATCH --output=%x-%j.log

set -euo pipefail
RECIPE=${1:?name a recipe: sbatch examples/slurm/train.sh RECIPE.yaml}
export OMP_NUM_THREADS=$SLURM_CPUS_PER_TASK

srun crack-md train "$RECIPE" \
    --set run.devices="$SLURM_NTASKS_PER_NODE" --set run.num_nodes="$SLURM_NNODES"
