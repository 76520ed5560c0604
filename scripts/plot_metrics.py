"""Plots the scalars of a training run over its steps, from `metrics.jsonl`."""

import argparse
import pathlib

from oanet_tf import errors, files
from oanet_tf.arguments import add_overwrite
from oanet_tf.training.series import METRICS_FILE, Series, read_series, smoothed

COLUMNS = 3
SUFFIXES = ('.png', '.pdf', '.svg', '.jpg')


def parse_arguments() -> argparse.Namespace:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--model_dir', required=True, help='model folder')
  parser.add_argument('--output', required=True, help='image file to write, such as losses.png')
  parser.add_argument(
    '--names',
    default='loss',
    metavar='PREFIX,…',
    help='scalars whose names begin with one of these, such as pq or gradient_norm '
    '(default: %(default)s)',
  )
  add_overwrite(parser)
  return parser.parse_args()


def main() -> None:
  arguments = parse_arguments()
  output = pathlib.Path(arguments.output)
  files.check_output_file(output, (), arguments.overwrite, SUFFIXES)
  path = pathlib.Path(arguments.model_dir) / METRICS_FILE
  series = read_series(path, tuple(arguments.names.split(',')))
  draw(series, output)


def draw(series: Series, output: pathlib.Path) -> None:
  """Draws a panel per scalar: its values, pale, and their moving mean."""
  import matplotlib

  matplotlib.use('Agg')
  from matplotlib import pyplot

  rows = -(-len(series) // COLUMNS)
  columns = min(COLUMNS, len(series))
  figure, axes = pyplot.subplots(
    rows, columns, figsize=(4.2 * columns, 2.6 * rows), squeeze=False, layout='constrained'
  )
  for axis, (name, (steps, values)) in zip(axes.flat, series.items(), strict=False):
    axis.plot(steps, values, color='tab:blue', alpha=0.3)
    axis.plot(steps, smoothed(values), color='tab:blue')
    axis.set_title(f'{name}   {values[0]:.3g} → {smoothed(values)[-1]:.3g}', fontsize=10)
    axis.set_xlabel('step', fontsize=9)
    axis.set_ylim(min(0.0, *values), 1.05 * max(0.0, *values))
    axis.grid(alpha=0.3)
  for axis in axes.flat[len(series) :]:
    axis.set_axis_off()
  with files.replacing(output) as temporary:
    figure.savefig(temporary, dpi=100, format=output.suffix[1:].lower())


if __name__ == '__main__':
  errors.run(main)
