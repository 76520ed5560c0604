"""Prints how well ways of ordering instances do, from the evaluations of `compare_orders.sh`."""

import argparse
import pathlib
import statistics
from collections.abc import Mapping, Sequence

from oanet_tf import errors
from oanet_tf.arguments import ArgumentParser
from oanet_tf.data.json_file import read_json_object
from oanet_tf.errors import InputError

FUSIONS = ('heuristic', 'class_prior', 'srm', 'pairwise', 'oracle')
SCENES = {'category': 'by category', 'context': 'by context'}

Scores = Mapping[str, Sequence[float]]


def table(scores: Mapping[str, Scores]) -> str:
  """A table in Markdown.

  Args:
    scores: by kind of scenes and fusion, PQ of things in percent for each seed.

  Returns:
    Means, with several seeds their standard deviations, and the mean share of the gap from
    'heuristic' to 'oracle' that each fusion closes.
  """
  rows = [
    '| scenes | ' + ' | '.join(FUSIONS) + ' |',
    '| --- |' + ' --- |' * len(FUSIONS),
  ]
  for kind, values in scores.items():
    cells = []
    for fusion in FUSIONS:
      cell = _mean(values[fusion])
      if fusion not in ('heuristic', 'oracle'):
        ends = zip(values['heuristic'], values[fusion], values['oracle'], strict=True)
        shares = [(score - low) / (high - low) for low, score, high in ends]
        cell += f' ({statistics.fmean(shares):.0%})'
      cells.append(cell)
    number = len(values['oracle'])
    seeds = f'{number} seed' + 's' * (number > 1)
    rows.append(f'| {SCENES[kind]}, {seeds} | ' + ' | '.join(cells) + ' |')
  return '\n'.join(rows)


def _mean(values: Sequence[float]) -> str:
  mean = f'{statistics.fmean(values):.1f}'
  return mean if len(values) == 1 else f'{mean} ± {statistics.stdev(values):.1f}'


def read(folder: pathlib.Path) -> dict[str, dict[str, list[float]]]:
  """PQ of things in percent, by kind of scenes and fusion, of each seed.

  Raises:
    InputError: if there is no evaluation, or one cannot be read or lacks a fusion.
  """
  scores = {}
  for kind in SCENES:
    files = sorted(folder.glob(f'{kind}_*/evaluation/results.json'))
    results = [read_json_object(file) for file in files]
    for file, result in zip(files, results, strict=True):
      if missing := [fusion for fusion in FUSIONS if fusion not in result]:
        raise InputError(f'{file}: lacks {", ".join(missing)}; evaluate again with --fusions')
    if results:
      scores[kind] = {
        fusion: [100 * result[fusion]['Things']['pq'] for result in results] for fusion in FUSIONS
      }
  if not scores:
    raise InputError(f'{folder}: has no evaluations; run scripts/compare_orders.sh')
  return scores


def main() -> None:
  parser = ArgumentParser(
    description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
  )
  parser.add_argument('folder', nargs='?', type=pathlib.Path, default='runs/orders')
  print(table(read(parser.parse_args().folder)))


if __name__ == '__main__':
  errors.run(main)
