"""Counts which category lies on which: `oanet class_prior --help`."""

import pathlib

import numpy as np

from oanet_tf import errors, files
from oanet_tf.arguments import ArgumentParser, add_overwrite
from oanet_tf.data import class_prior, inspect, shard_files


def main() -> None:
  parser = ArgumentParser(
    prog='oanet class_prior',
    description='Counts which of two categories the panoptic ground truth shows where objects of '
    'both overlap. The fusion class_prior orders instances by these counts; set '
    'task.model.fusion.class_prior to the file.',
  )
  parser.add_argument(
    '--input_path', required=True, metavar='SHARDS', help='files or globs, separated by commas'
  )
  parser.add_argument(
    '--categories', metavar='FILE', help='(default: categories.json beside the shards)'
  )
  parser.add_argument('--output', required=True, type=pathlib.Path, help='JSON file')
  add_overwrite(parser)
  arguments = parser.parse_args()
  shards = shard_files.list_shards(arguments.input_path)
  paths = [pathlib.Path(shard) for shard in shards]
  categories = inspect.read_categories(paths, arguments.categories)
  inputs = [*shards, arguments.categories]
  files.check_output_file(arguments.output, inputs, arguments.overwrite, ('.json',))
  prior = class_prior.count(shards, categories)
  prior.to_json(arguments.output)
  print(f'{arguments.output}: {np.count_nonzero(prior.pixels + prior.pixels.T) // 2} pairs')


if __name__ == '__main__':
  errors.run(main)
