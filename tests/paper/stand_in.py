"""A stand-in for the commands of training and evaluation."""

import json
import pathlib

import yaml

from oanet_tf.config import check as config_check
from tests.commands import evaluate, train

GROUPS = ('All', 'Things', 'Stuff')


class Commands:
  """Writes what the commands would, at once; `srm` scores 10 above `heuristic`.

  Attributes:
    calls: module, name of the training and seed of each, in order.
    diverging: names of trainings that diverge.
    failing: names of trainings that fail.
  """

  def __init__(self, diverging=(), failing=()):
    self.calls = []
    self.diverging = diverging
    self.failing = failing

  def __call__(self, arguments, lock):
    assert arguments[0] == '-m' and lock >= 0
    module = arguments[1].removeprefix('oanet_tf.')
    return getattr(self, module)(list(arguments[2:]))

  def train(self, arguments):
    parsed = train.parse_arguments(arguments)
    folder = pathlib.Path(parsed.model_dir)
    self.calls.append(('train', folder.parent.name, folder.name))
    if folder.parent.name in self.diverging:
      return 2, 'step 1/2\rerror: step 7: non-finite loss (nan) in the batch of images 1\n'
    if folder.parent.name in self.failing:
      return 2, 'training: 0%\rerror: shard: is damaged\n'
    settings = config_check.resolve_experiment(
      parsed.experiment, parsed.config_file, parsed.params_override
    )
    (folder / 'params.yaml').write_text(yaml.dump(config_check.to_nested(settings)))
    (folder / f'ckpt-{settings["trainer.train_steps"].value}.index').touch()
    return 0, ''

  def evaluate(self, arguments):
    parsed = evaluate.parse_arguments(arguments)
    for folder in (parsed.model_dir, parsed.ranking_module):
      assert folder is None or list(folder.glob('ckpt-*.index'))
    parsed.output_dir.mkdir()
    folder = parsed.output_dir.parent
    self.calls.append(('evaluate', folder.parent.name, folder.name))
    pq = 0.5 + 0.02 * int(folder.name.removeprefix('seed_'))
    results = {
      fusion: {group: {'pq': pq + more, 'sq': 0.8, 'rq': 0.6} for group in GROUPS}
      for fusion, more in (('heuristic', 0.0), ('srm', 0.1))
    }
    (parsed.output_dir / 'results.json').write_text(json.dumps(results))
    return 0, ''
