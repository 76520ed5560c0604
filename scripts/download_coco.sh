#!/usr/bin/env bash
# Fetches COCO 2017's images and its instance and panoptic annotations (20 GB) into a folder and
# unpacks them; with --annotations_only no images (1.1 GB). Interrupted and run again, it continues
# where it stopped. COCO_URL may name a mirror.
set -euo pipefail
archives=(
  annotations/annotations_trainval2017.zip annotations/panoptic_annotations_trainval2017.zip
)
if [[ ${1-} == --annotations_only ]]; then
  shift
else
  archives=(zips/train2017.zip zips/val2017.zip "${archives[@]}")
fi
if [[ $# -ne 1 || $1 == -* ]]; then
  echo "usage: bash $0 [--annotations_only] FOLDER" >&2
  exit 2
fi
mkdir -p "$1"
cd "$1"
url=${COCO_URL:-http://images.cocodataset.org}

size_of() { if [[ -f $1 ]]; then wc -c < "$1"; else echo 0; fi; }

for archive in "${archives[@]}"; do
  file=$(basename "$archive")
  [[ -f $file.done ]] && continue
  size=$(curl --fail --silent --show-error --head --location "$url/$archive" |
    awk 'tolower($1) == "content-length:" { size = $2 + 0 } END { print size }')
  if (($(size_of "$file") != size)); then
    curl --fail --location --continue-at - --output "$file" "$url/$archive"
  fi
  if (($(size_of "$file") != size)); then
    echo "error: $file has $(size_of "$file") bytes, not $size; remove it and start again" >&2
    exit 1
  fi
  unzip -q -o "$file" # Verifies the checksum of every file.
  touch "$file.done"
  rm "$file"
done
# The panoptic PNGs are in archives within the archive.
for split in train2017 val2017; do
  if [[ -f annotations/panoptic_$split.zip ]]; then
    unzip -q -o "annotations/panoptic_$split.zip" -d annotations
    rm "annotations/panoptic_$split.zip"
  fi
done
