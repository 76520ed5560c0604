"""Formats that write one file and say how it compares."""

import json

from oanet_tf.serving.parity import Format, Parity


def _write(source, folder):
  (folder / 'file').write_text(json.dumps({'fusion': source.method}))


def _format(parity, write=_write):
  return Format(write, lambda source, folder: parity, 0.99, 0.1)


def _interrupted(source, folder):
  _write(source, folder)
  raise KeyboardInterrupt


def _parity(different_pixels, score_difference):
  return Parity(2, 1000, different_pixels, 'a.png', score_difference, 'b.png')


GOOD = _format(_parity(5, 0.05))
OTHER_PIXELS = _format(_parity(20, 0.05))
OTHER_SCORES = _format(_parity(0, 0.2))
NO_NUMBERS = _format(_parity(0, float('nan')))
INTERRUPTED = _format(_parity(0, 0.0), _interrupted)
