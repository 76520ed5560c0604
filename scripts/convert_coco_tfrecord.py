#!/usr/bin/env python3
"""Converts a COCO panoptic dataset to TFRecord shards; see `--help`."""

from oanet_tf.convert import main
from oanet_tf.errors import run

if __name__ == '__main__':
  run(main)
