"""Command line of training: `python -m oanet_tf.train --help`."""

import argparse
import os

from oanet_tf import errors
from oanet_tf.arguments import add_config_file, add_params_override, log_to_stderr
from oanet_tf.config import check as config_check


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
  """The flags are those of the Model Garden's trainers."""
  parser = argparse.ArgumentParser(
    prog='python -m oanet_tf.train',
    description='Trains and evaluates OANet.',
    epilog='Example: python -m oanet_tf.train --experiment oanet_synthetic --model_dir runs/first '
    '--params_override trainer.train_steps=500,task.model.spatial_ranking.convolution=3x3',
  )
  parser.add_argument(
    '--experiment',
    help=f'one of {", ".join(config_check.experiment_names())}; not required for --mode eval, '
    "which takes the model folder's params.yaml by default",
  )
  add_config_file(parser, '; of several, the later file wins')
  add_params_override(parser, 'to the files')
  parser.add_argument(
    '--model_dir',
    required=True,
    help='folder for params.yaml, checkpoints, TensorBoard events and evaluation; '
    'training continues from a checkpoint there',
  )
  parser.add_argument(
    '--mode',
    choices=('train', 'eval', 'train_and_eval'),
    default='train_and_eval',
    help='(default: %(default)s)',
  )
  parsed = parser.parse_args(arguments)
  if not parsed.experiment and parsed.mode != 'eval':
    parser.error('--experiment is required to train')
  return parsed


def main() -> None:
  arguments = parse_arguments()
  experiment, config_files = arguments.experiment, arguments.config_file
  if not experiment:
    experiment = config_check.BASE_EXPERIMENT
    config_files = [config_check.params_path(arguments.model_dir), *config_files]
  settings = config_check.resolve_experiment(experiment, config_files, arguments.params_override)
  if settings['runtime.enable_xla'].value:
    # TensorFlow reads this when it starts. Without it, XLA does not compile for the CPU.
    os.environ['TF_XLA_FLAGS'] = f'{os.environ.get("TF_XLA_FLAGS", "")} --tf_xla_cpu_global_jit'
  # Loading TensorFlow takes seconds, so flags and configuration are checked first.
  from oanet_tf.config import experiments
  from oanet_tf.training import loop

  log_to_stderr()
  config = experiments.load_experiment(experiment, config_files, arguments.params_override)
  loop.run(config, arguments.model_dir, arguments.mode)


if __name__ == '__main__':
  errors.run(main)
