"""Prints how well ways of ordering instances do, from the evaluations of `compare_orders.sh`."""

import argparse
import json
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from oanet_tf import errors
from oanet_tf.arguments import ArgumentParser
from oanet_tf.errors import InputError

FUSIONS = ('heuristic', 'class_prior', 'srm', 'pairwise', 'oracle')
SCENES = {'category': 'by category', 'context': 'by context'}

Scores = Mapping[str, Sequence[float]]


def table(scores: Mapping[str, Scores]) -> str:
  """A table in Markdown.

  Args:
    scores: by kind of scenes and fusion, PQ of things in percent for each seed.

  Returns:
    Means, standard deviations over seeds, and the mean share of the gap from 'heuristic' to
    'oracle' that each fusion closes.
  """
  rows = [
    '| scenes | ' + ' | '.join(FUSIONS) + ' |',
    '| --- |' + ' --- |' * len(FUSIONS),
  ]
  for kind, of_fusion in scores.items():
    values = {fusion: np.array(of_fusion[fusion]) for fusion in FUSIONS}
    gap = values['oracle'] - values['heuristic']
    cells = []
    for fusion in FUSIONS:
      cell = f'{values[fusion].mean():.1f} ± {values[fusion].std():.1f}'
      if fusion not in ('heuristic', 'oracle'):
        cell += f' ({np.mean((values[fusion] - values["heuristic"]) / gap):.0%})'
      cells.append(cell)
    seeds = f'{len(gap)} seed' + 's' * (len(gap) > 1)
    rows.append(f'| {SCENES[kind]}, {seeds} | ' + ' | '.join(cells) + ' |')
  return '\n'.join(rows)


def read(folder: pathlib.Path) -> dict[str, dict[str, list[float]]]:
  """PQ of things in percent, by kind of scenes and fusion, of each seed.

  Raises:
    InputError: if there is no evaluation, or one lacks a fusion.
  """
  scores = {}
  for kind in SCENES:
    files = sorted(folder.glob(f'{kind}_*/evaluation/results.json'))
    results = [json.loads(file.read_text()) for file in files]
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
