"""Makes the paper's Tables 1 to 5, and one beyond it: `oanet ablation --help`."""

import argparse
import itertools
import pathlib
from collections.abc import Sequence

from oanet_tf import errors, files
from oanet_tf.arguments import ArgumentParser, add_config_file, add_params_override, positive
from oanet_tf.data import shard_files
from oanet_tf.errors import InputError
from oanet_tf.model_folder import check_weights_exist
from oanet_tf.paper import plan, results, runs
from oanet_tf.paper.plan import Job, Options
from oanet_tf.paper.tables import DATASETS, PAPER_TABLES, TABLES, Dataset


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
  parser = ArgumentParser(
    prog='oanet ablation',
    description="Makes the paper's tables, and one of options beyond it. Trains and scores what "
    "their rows need, and writes table_N.md, .csv and .png with the paper's scores beside. If it "
    'is interrupted, the same command goes on where it stopped. Several commands on one folder '
    'share the work.',
    epilog='Example: oanet ablation --table 1,5 --dataset synthetic '
    '--model_dir runs/paper --seeds 3 --train_steps 400',
  )
  parser.add_argument(
    '--table',
    required=True,
    type=_tables,
    metavar='N,…',
    help=f"any of {', '.join(TABLES)}; all is the paper's",
  )
  parser.add_argument(
    '--dataset', required=True, choices=tuple(DATASETS), help='dataset with shards in tfrecords/'
  )
  parser.add_argument(
    '--model_dir',
    required=True,
    type=pathlib.Path,
    help='folder of the tables and, in NAME/seed_N/, the trainings',
  )
  parser.add_argument(
    '--seeds', type=positive, default=1, help='trainings of each row (default: %(default)s)'
  )
  parser.add_argument(
    '--train_steps',
    type=positive,
    default=0,
    help="steps of each training; the learning rate's schedule is stretched to them (default: the "
    "experiments')",
  )
  add_config_file(parser, ' of the networks, such as configs/coco_4gpu.yaml')
  add_params_override(parser, 'to all trainings')
  parser.add_argument(
    '--init_checkpoints',
    nargs=2,
    default=[],
    metavar=('SMALL', 'LARGE'),
    help='checkpoints or model folders with the small and the large backbone; for coco, '
    'oanet download backbone 50 and 101 get them',
  )
  parser.add_argument(
    '--dry_run', action='store_true', help='only print the trainings and their states'
  )
  return parser.parse_args(arguments)


def _tables(text: str) -> list[str]:
  given = [PAPER_TABLES if name == 'all' else [name] for name in text.split(',')]
  names = list(dict.fromkeys(itertools.chain(*given)))
  for name in names:
    if name not in TABLES:
      raise argparse.ArgumentTypeError(f'there is no table {name!r}; known are {", ".join(TABLES)}')
  return names


def main(run: runs.Runner = runs.run_python) -> None:
  arguments = parse_arguments()
  options = Options(
    arguments.model_dir,
    arguments.train_steps,
    tuple(arguments.config_file),
    arguments.params_override,
    tuple(arguments.init_checkpoints),
  )
  dataset, names = DATASETS[arguments.dataset], arguments.table
  rows = [row for name in names for row in TABLES[name].rows]
  jobs = plan.plan(rows, dataset, options, arguments.seeds)
  files.check_output_folder(options.model_dir)
  for path in options.init_checkpoints:
    check_weights_exist(path)
  for job in jobs:
    _check(job)
  if arguments.dry_run:
    for job in jobs:
      name = f'{job.training.name}/seed_{job.training.seed}'
      print(f'{name:40} {job.training.last_step:>7} steps  {job.state}')
    return
  try:
    runs.run_all(jobs, run)
  finally:
    # Also after an error or an interrupt, as far as there are scores.
    _write_tables(names, dataset, options, arguments.seeds, jobs)


def _check(job: Job) -> None:
  """Raises `InputError` if something is missing, or the folder has a training of other settings."""
  training = job.training
  training.check_folder()
  for scoring in job.scorings:
    if scoring.config:
      plan.config_path(scoring.config)
  if not training.last_step:
    raise InputError(f'{training.name}: trainer.train_steps is 0; give --train_steps')
  for split in ('train_data', 'validation_data'):
    shard_files.list_shards(training.settings[f'task.{split}.input_path'].value)


def _write_tables(
  names: Sequence[str], dataset: Dataset, options: Options, seeds: int, jobs: Sequence[Job]
) -> None:
  """Writes and prints the tables, as far as there are scores."""
  steps = sorted({job.training.last_step for job in jobs})
  about = f'{dataset.title}, {" or ".join(map(str, steps))} steps, ' + (
    f'mean ± standard deviation over {seeds} seeds' if seeds > 1 else 'one seed'
  )
  written = []
  for name in names:
    rows = results.find_rows(TABLES[name], dataset, options, seeds)
    if any(row.scores or row.num_diverged for row in rows):
      written.append(results.write(TABLES[name], rows, about, options.model_dir, f'table_{name}'))
  for text in written:
    print(text)


if __name__ == '__main__':
  errors.run(main)
