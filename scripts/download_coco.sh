#!/usr/bin/env bash
# Fetches COCO 2017's images and its instance and panoptic annotations (20 GB) into a folder and
# unpacks them. Interrupted, it goes on where it was.
set -euo pipefail
if [[ $# -ne 1 || $1 == -* ]]; then
  echo "usage: bash $0 FOLDER" >&2
  exit 2
fi
mkdir -p "$1"
cd "$1"

for archive in \
  zips/train2017.zip zips/val2017.zip \
  annotations/annotations_trainval2017.zip annotations/panoptic_annotations_trainval2017.zip; do
  file=$(basename "$archive")
  [[ -f $file.done ]] && continue
  curl --fail --location --continue-at - --output "$file" "http://images.cocodataset.org/$archive"
  unzip -q -o "$file"
  touch "$file.done"
  rm "$file"
done
# The panoptic PNGs are archives within the archive.
for split in train2017 val2017; do
  if [[ -f annotations/panoptic_$split.zip ]]; then
    unzip -q -o "annotations/panoptic_$split.zip" -d annotations
    rm "annotations/panoptic_$split.zip"
  fi
done
