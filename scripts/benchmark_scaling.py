#!/usr/bin/env python3
"""Measures how the network's cost grows: with pixels, images, instances and categories.

The base is ResNet-50 and FPN, one image of 512 × 512, 20 instances and 133 categories; each curve
changes one of these. A setting is a process of its own; the settings of a curve take turns. Where
cost is linear, seconds per pixel or image fall to a level and stay there.
"""

import argparse
import json
import os
import pathlib

import benchmark_model

PIXELS = [[side, side] for side in (256, 384, 512, 768, 1024)]
# For each curve: its unit, and the changes of a setting by label.
CURVES = {
  'pixels': ('side of a square', {str(size[0]): {'size': size} for size in PIXELS}),
  'batch': ('images', {str(number): {'batch': number} for number in (1, 2, 4)}),
  'instances': (
    'instances',
    {str(number): {'detections': number} for number in (1, 10, 25, 50, 100)},
  ),
  'categories': (
    'categories, three in five of things',
    {
      str(things + stuff): {'things': things, 'stuff': stuff}
      for things, stuff in ((5, 3), (19, 13), (38, 26), (80, 53))
    },
  ),
}
MODE_NAMES = {'infer': 'inference', 'train': 'training step'}
AXIS_NAMES = {'pixels': 'million pixels', 'batch': 'images in a batch'}
BASE = {'name': 'ours', 'size': [512, 512], 'batch': 1}
# In training, the number of sampled RoIs is fixed, so instances do not matter.
MODES = {
  'infer': ('pixels', 'batch', 'instances', 'categories'),
  'train': ('pixels', 'batch', 'categories'),
}


def main(arguments: list[str] | None = None) -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--modes', nargs='+', choices=tuple(MODES), default=tuple(MODES))
  parser.add_argument('--curves', nargs='+', choices=tuple(CURVES), default=tuple(CURVES))
  parser.add_argument('--rounds', type=int, default=5, help='(default: %(default)s)')
  parser.add_argument('--output', type=pathlib.Path, help='JSON file for the measurements')
  parser.add_argument('--plot', type=pathlib.Path, help='PNG file for the curves')
  parsed = parser.parse_args(arguments)
  found = {}
  for mode in parsed.modes:
    for curve in parsed.curves:
      if curve in MODES[mode]:
        unit, settings = CURVES[curve]
        contenders = {label: {**BASE, 'mode': mode, **change} for label, change in settings.items()}
        measured = benchmark_model.compare(contenders, parsed.rounds)
        print_curve(mode, unit, measured)
        found[f'{mode} {curve}'] = measured
        # Written after each curve, in case the rest is stopped.
        if parsed.output:
          parsed.output.write_text(json.dumps(found, indent=1) + '\n')
  if parsed.plot:
    plot(found, parsed.plot)


def print_curve(mode: str, unit: str, measured: dict[str, dict[str, float]]) -> None:
  print(f'{mode} by {unit}, {os.cpu_count()} cores')
  print(f'{"":>6} {"seconds":>8} {"least":>7} {"GFLOP":>7} {"GFLOP/s":>8} {"peak MB":>8}')
  for label, row in measured.items():
    rate = row['gflop'] / row['step']
    cells = f'{row["step"]:8.2f} {row["least"]:7.2f} {row["gflop"]:7.0f} {rate:8.0f}'
    print(f'{label:>6} {cells} {row["peak_mb"]:8.0f}', flush=True)


def plot(found: dict[str, dict[str, dict[str, float]]], path: pathlib.Path) -> None:
  """Plots seconds over the unit of each curve; over pixels where the unit is a side."""
  import matplotlib

  matplotlib.use('Agg')
  from matplotlib import pyplot

  curves = [curve for curve in CURVES if any(name.endswith(f' {curve}') for name in found)]
  figure, axes = pyplot.subplots(
    1, len(curves), figsize=(3.4 * len(curves), 3.2), squeeze=False, layout='constrained'
  )
  for axis, curve in zip(axes.flat, curves, strict=True):
    for color, mode in zip(('tab:blue', 'tab:orange'), MODES, strict=True):
      measured = found.get(f'{mode} {curve}', {})
      power = 2 if curve == 'pixels' else 1
      x = [int(label) ** power / (1e6 if curve == 'pixels' else 1) for label in measured]
      if measured:
        seconds = [row['step'] for row in measured.values()]
        axis.plot(x, seconds, 'o-', color=color, label=MODE_NAMES[mode])
    axis.set_xlabel(AXIS_NAMES.get(curve, curve))
    axis.set_ylabel('seconds')
    axis.set_xlim(left=0)
    axis.set_ylim(bottom=0)
    axis.grid(alpha=0.3)
    axis.legend()
  figure.savefig(path, dpi=120, format='png')


if __name__ == '__main__':
  from oanet_tf import errors

  errors.run(main)
