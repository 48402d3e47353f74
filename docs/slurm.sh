#!/bin/bash
# A training on Slurm: sbatch --nodes=4 slurm.sh s3://YOUR-BUCKET/dataset /shared/runs/expression-visual
# One Ray per machine, joined by a token that only this job knows; the same command again goes on (--resume).
#SBATCH --job-name=headstart
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=56
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --signal=B:TERM@180   # three minutes before the limit: a checkpoint is saved, then the job is put back in the queue
set -euo pipefail
DATA=$1 RUN=$2

umask 077
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH="$HOME/.headstart/ray-token-$SLURM_JOB_ID"
mkdir -p "$(dirname "$RAY_AUTH_TOKEN_PATH")"
openssl rand -hex 32 > "$RAY_AUTH_TOKEN_PATH"   # in a file: process lists show arguments
trap 'rm -f "$RAY_AUTH_TOKEN_PATH"' EXIT

HEAD=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
ADDRESS=$(getent ahostsv4 "$HEAD" | awk 'NR==1 {print $1}'):6379

srun --nodes=1 --ntasks=1 --nodelist="$HEAD" \
    ray start --head --node-ip-address="${ADDRESS%:*}" --port=6379 --include-dashboard=false --block &
sleep 15
if [ "$SLURM_NNODES" -gt 1 ]; then
    srun --nodes=$((SLURM_NNODES - 1)) --ntasks=$((SLURM_NNODES - 1)) --exclude="$HEAD" \
        ray start --address="$ADDRESS" --block &
    sleep 15
fi

headstart pretrain expression-visual --data "$DATA" --out "$RUN" --config base \
    --cluster multi-node --address "$ADDRESS" --workers $((8 * SLURM_NNODES)) --resume &
TRAINING=$!
trap 'kill -TERM $TRAINING; wait $TRAINING; rm -f "$RAY_AUTH_TOKEN_PATH"; scontrol requeue "$SLURM_JOB_ID"' TERM
wait $TRAINING
