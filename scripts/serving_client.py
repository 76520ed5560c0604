#!/usr/bin/env python3
"""Sends images to TensorFlow Serving and draws the answers; see `--help`."""

from oanet_tf.client import main
from oanet_tf.errors import run

if __name__ == '__main__':
  run(main)
