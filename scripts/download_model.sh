#!/usr/bin/env bash
# Fetches a panoptic network that its publisher trained on COCO and prints the command that imports
# it. Interrupted and run again, it continues where it stopped. MODEL_URL may name a mirror.
set -euo pipefail

NAMES='detectron2_r50_1x detectron2_r50_3x detectron2_r101_3x model_garden_1x model_garden_3x'

usage() {
  cat << END
usage: bash $0 NAME [FOLDER]

Fetches the network NAME into FOLDER (runs/published). The last line that it prints is the command
that makes a model folder of it. NAME is one of
  detectron2_r50_1x   Detectron2's Panoptic FPN, ResNet-50, PQ 39.4 (180 MB)
  detectron2_r50_3x   the same, trained three times as long, PQ 41.5
  detectron2_r101_3x  ResNet-101, PQ 43.0 (260 MB)
  model_garden_1x     the TensorFlow Model Garden's Panoptic FPN, ResNet-50, PQ 39.1
  model_garden_3x     the same, trained three times as long, PQ 40.9
END
}

fail() {
  echo "error: $*" >&2
  exit 1
}

[[ ${1-} == --help ]] && usage && exit
name=${1-}
folder=${2:-runs/published}
if (($# < 1 || $# > 2)) || [[ $name == -* || $folder == -* ]]; then
  usage >&2
  exit 2
fi
if [[ " $NAMES " != *" $name "* ]]; then
  echo "error: there is no network $name; known are $NAMES" >&2
  exit 2
fi
mkdir -p "$folder"

size_of() { if [[ -f $1 ]]; then wc -c < "$1" | tr -d ' '; else echo 0; fi; }

md5_of() {
  if command -v md5sum > /dev/null; then md5sum "$1"; else md5 -r "$1"; fi | cut -d ' ' -f 1
}

# fetch URL FILE SIZE: unless the file is there already.
fetch() {
  local size=$3
  [[ -f $2 ]] && return
  if (($(size_of "$2.part") != size)); then
    curl --fail --location --continue-at - --output "$2.part" "$1" ||
      fail "$1 was not fetched; start again to continue"
  fi
  (($(size_of "$2.part") == size)) ||
    fail "$2.part has $(size_of "$2.part") bytes, not $size; remove it and start again"
}

if [[ $name == detectron2_* ]]; then
  case $name in # As in detectron2/MODEL_ZOO.md. The names end in the first digits of an MD5 sum.
    detectron2_r50_1x) path=panoptic_fpn_R_50_1x/139514544/model_final_dbfeb4.pkl ;;
    detectron2_r50_3x) path=panoptic_fpn_R_50_3x/139514569/model_final_c10459.pkl ;;
    detectron2_r101_3x) path=panoptic_fpn_R_101_3x/139514519/model_final_cafdb1.pkl ;;
  esac
  echo "Detectron2's models are under CC BY-SA 3.0: name their source, and keep the licence." >&2
  url=${MODEL_URL:-https://dl.fbaipublicfiles.com}/detectron2/COCO-PanopticSegmentation/$path
  file=$folder/$name.pkl
  if [[ ! -f $file ]]; then
    size=$(curl --fail --silent --show-error --head --location "$url" |
      awk 'tolower($1) == "content-length:" { size = $2 + 0 } END { print size }') ||
      fail "$url was not found"
    fetch "$url" "$file" "$size"
    prefix=${path##*_}
    [[ $(md5_of "$file.part") == "${prefix%.pkl}"* ]] ||
      fail "$file.part is damaged; remove it and start again"
    mv "$file.part" "$file"
  fi
  weights=$file
else
  url=${MODEL_URL:-https://storage.googleapis.com}
  prefix=vision/panoptic/panoptic_fpn/panoptic_fpn_${name##*_}/
  # The storage lists the files of a folder with their sizes and MD5 sums.
  listing=$(curl --fail --silent --show-error --location \
    "$url/storage/v1/b/tf_model_garden/o?prefix=$prefix") || fail "$url was not reached"
  files=$(python3 -c '
import base64, json, sys
for item in json.loads(sys.argv[1]).get("items", []):
  if not item["name"].endswith("/"):
    print(item["name"], item["size"], base64.b64decode(item["md5Hash"]).hex())
' "$listing") || fail "$url answered with no list of files"
  [[ $files ]] || fail "$url has no files in $prefix"
  mkdir -p "$folder/$name"
  while read -r path size md5; do
    file=$folder/$name/$(basename "$path")
    [[ -f $file ]] && continue
    fetch "$url/tf_model_garden/$path" "$file" "$size"
    [[ $(md5_of "$file.part") == "$md5" ]] ||
      fail "$file.part is damaged; remove it and start again"
    mv "$file.part" "$file"
  done <<< "$files"
  index=$(find "$folder/$name" -name '*.index' | sort -V | tail -n 1)
  [[ $index ]] || fail "$folder/$name has no checkpoint"
  weights=${index%.index}
fi
echo "python -m oanet_tf.import_weights --from $weights --model_dir runs/$name"
