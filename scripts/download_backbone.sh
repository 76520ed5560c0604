#!/usr/bin/env bash
# Fetches a ResNet trained on ImageNet and prints the setting that starts training from it.
# Interrupted and run again, it continues where it stopped. BACKBONE_URL may name a mirror.
set -euo pipefail

usage() {
  cat << END
usage: bash $0 [--keras] [50|101|152] [FOLDER]

Fetches the ImageNet checkpoint of the Model Garden's ResNet of that depth (50) into FOLDER
(runs/backbones), or with --keras the weights of tf_keras.applications. Give the last line that it
prints to oanet_tf.train after --params_override.
END
}

fail() {
  echo "error: $*" >&2
  exit 1
}

keras=false
arguments=()
for argument in "$@"; do
  case $argument in
    --help) usage && exit ;;
    --keras) keras=true ;;
    -*) usage >&2 && exit 2 ;;
    *) arguments+=("$argument") ;;
  esac
done
depth=${arguments[0]:-50}
folder=${arguments[1]:-runs/backbones}
if ((${#arguments[@]} > 2)) || [[ ! $depth =~ ^(50|101|152)$ ]]; then
  usage >&2
  exit 2
fi
url=${BACKBONE_URL:-https://storage.googleapis.com}
mkdir -p "$folder"

# fetch PATH FILE CHECK: from the URL, unless the file or a complete .part file is there already.
fetch() {
  [[ -f $2 ]] && return
  if ! "$3" "$2.part"; then
    curl --fail --location --continue-at - --output "$2.part" "$url/$1" ||
      fail "$url/$1 was not fetched; start again to continue"
  fi
  "$3" "$2.part" || fail "$2.part is damaged; remove it and start again"
  mv "$2.part" "$2"
}

if $keras; then
  case $depth in # As tf_keras.applications.resnet.WEIGHTS_HASHES.
    50) md5=4d473c1dd8becc155b73f8504c6f6626 ;;
    101) md5=88cf7a10940856eca736dc7b7e228a21 ;;
    152) md5=ee4c566cf9a93f14d82f913c2dc6dd0c ;;
  esac
  has_md5() {
    [[ -f $1 ]] || return 1
    if command -v md5sum > /dev/null; then md5sum "$1"; else md5 -r "$1"; fi | grep -q "^$md5 "
  }
  file=resnet${depth}_weights_tf_dim_ordering_tf_kernels_notop.h5
  fetch "tensorflow/keras-applications/resnet/$file" "$folder/$file" has_md5
  backbone=task.model.backbone.type=keras_resnet,task.model.backbone.keras_resnet.model_id=$depth
  echo "task.init_checkpoint=$folder/$file,$backbone"
  exit
fi

name=resnet-$depth-i224
is_gzip() { gzip --test "$1" 2> /dev/null; }
# macOS tar adds files that start with ._
index_in() { find "$1" -name '*.index' ! -name '._*' | sort | tail -n 1; }
if [[ ! -d $folder/$name ]]; then
  archive=$folder/$name.tar.gz
  fetch "tf_model_garden/vision/resnet/$name.tar.gz" "$archive" is_gzip
  rm -rf "$folder/$name.unpacking"
  mkdir "$folder/$name.unpacking"
  tar -xzf "$archive" -C "$folder/$name.unpacking"
  [[ $(index_in "$folder/$name.unpacking") ]] || fail "$archive has no checkpoint"
  mv "$folder/$name.unpacking" "$folder/$name"
  rm "$archive"
fi
checkpoint=$(index_in "$folder/$name")
echo "task.init_checkpoint=${checkpoint%.index},task.model.backbone.resnet.model_id=$depth"
