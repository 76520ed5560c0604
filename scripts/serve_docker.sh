#!/usr/bin/env bash
# Serves the newest SavedModel of an export with TensorFlow Serving, and newer ones once they appear.
set -euo pipefail

usage() {
  cat << END
usage: bash $0 [--batching] [--gpu] EXPORT_DIR

Serves EXPORT_DIR/savedmodel, made by oanet export, as the model "oanet" in the
foreground: gRPC on port 8500, REST on port 8501 (GRPC_PORT and REST_PORT choose others). --batching
combines requests as scripts/serving_batching.config says. IMAGE chooses another Docker image of
TensorFlow Serving; its version must be at least that of the TensorFlow that exported.
END
}

fail() {
  echo "error: $*" >&2
  exit 2
}

image=${IMAGE:-tensorflow/serving:2.20.0}
docker=() server=() folder=
for argument in "$@"; do
  case $argument in
    --help) usage && exit ;;
    --batching)
      config=$(cd "$(dirname "$0")" && pwd)/serving_batching.config
      docker+=(--volume "$config:/batching.config:ro")
      server+=(--enable_batching --batching_parameters_file=/batching.config)
      ;;
    --gpu)
      docker+=(--gpus all)
      image=${IMAGE:-$image-gpu}
      ;;
    -*) usage >&2 && exit 2 ;;
    *)
      [[ -z $folder ]] || { usage >&2 && exit 2; }
      folder=$argument
      ;;
  esac
done
[[ $folder ]] || { usage >&2 && exit 2; }
compgen -G "$folder/savedmodel/[0-9]*/saved_model.pb" > /dev/null ||
  fail "$folder: has no savedmodel/VERSION; oanet export --export_dir $folder makes one"
command -v docker > /dev/null || fail "docker is not installed: https://docs.docker.com/get-docker"

# Memory that a request needed is then given back after it, instead of kept for the next: see
# "What a request costs" in oanet_tf/serving/README.md.
docker+=(--env TF_ONEDNN_USE_SYSTEM_ALLOCATOR=1 --env MALLOC_MMAP_THRESHOLD_=1048576)

exec docker run --rm --init \
  --publish "${GRPC_PORT:-8500}:8500" --publish "${REST_PORT:-8501}:8501" \
  --volume "$(cd "$folder/savedmodel" && pwd):/models/oanet:ro" --env MODEL_NAME=oanet \
  ${docker[@]+"${docker[@]}"} "$image" ${server[@]+"${server[@]}"}
