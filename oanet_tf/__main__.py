"""The command `oanet`: runs the package's commands by name."""

import difflib
import importlib
import sys
from typing import NamedTuple

import oanet_tf
from oanet_tf import errors
from oanet_tf.errors import InputError


class Command(NamedTuple):
  """A command: where its `main` is, and what it does in one line."""

  module: str
  summary: str


COMMANDS = {
  'predict': Command('oanet_tf.predict', 'segment pictures, a video or a camera'),
  'convert': Command('oanet_tf.convert', 'COCO files to TFRecord shards'),
  'inspect': Command('oanet_tf.data.inspect', 'show what is in shards'),
  'train': Command('oanet_tf.train', 'train a network'),
  'evaluate': Command('oanet_tf.evaluate', 'score the fusions of a trained network'),
  'report': Command('oanet_tf.report', 'a page on what one fusion gains over another'),
  'pq': Command('oanet_tf.pq', 'panoptic quality of files'),
  'export': Command('oanet_tf.export', 'write a SavedModel, TFLite files or a page'),
  'demo': Command('oanet_tf.demo', 'segment pictures in the browser'),
  'client': Command('oanet_tf.client', 'send pictures to TensorFlow Serving'),
  'download': Command('oanet_tf.download', 'fetch COCO, backbones and published networks'),
  'import_weights': Command('oanet_tf.import_weights', 'weights of other packages'),
  'class_prior': Command('oanet_tf.class_prior', 'count which category lies on which'),
  'scenes': Command('oanet_tf.data.occluded_scenes.__main__', 'generate OccludedScenes'),
  'ablation': Command('oanet_tf.ablation', "the paper's tables"),
  'figures': Command('oanet_tf.figures', "the paper's figures"),
}


def usage() -> str:
  """The help."""
  width = max(map(len, COMMANDS))
  lines = [f'  {name:<{width}}  {command.summary}' for name, command in COMMANDS.items()]
  return '\n'.join(
    [
      'usage: oanet COMMAND …',
      '',
      'Panoptic segmentation for TensorFlow. Commands:',
      *lines,
      '',
      'oanet COMMAND --help tells more. oanet predict alone shows what it does.',
    ]
  )


def main(arguments: list[str] | None = None) -> int | None:
  """Runs the command that the first argument names; `arguments` are `sys.argv[1:]` unless given.

  Raises:
    InputError: if there is no such command.
  """
  name, *rest = (sys.argv[1:] if arguments is None else arguments) or ['--help']
  if name in ('-h', '--help', 'help'):
    print(usage())
    return 0
  if name == '--version':
    print(f'oanet_tf {oanet_tf.__version__}')
    return 0
  if name not in COMMANDS:
    near = difflib.get_close_matches(name, COMMANDS, 1)
    hint = f'did you mean {near[0]}?' if near else f'commands are {", ".join(COMMANDS)}'
    raise InputError(f'oanet has no command {name!r}; {hint}')
  sys.argv = [f'oanet {name}', *rest]
  return importlib.import_module(COMMANDS[name].module).main()


def run() -> None:
  """The entry point of the installed program."""
  errors.run(main)


if __name__ == '__main__':
  run()
