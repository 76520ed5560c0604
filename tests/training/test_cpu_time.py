import logging
import pathlib

import pytest

from oanet_tf.cluster import Cluster
from oanet_tf.config import experiments
from oanet_tf.errors import InputError
from oanet_tf.training import cpu_time, loop
from tests import devices
from tests.test_cluster import strategy_over

OVERFIT = pathlib.Path(__file__).resolve().parents[2] / 'configs' / 'oanet_coco_overfit.yaml'


def test_the_papers_recipe_takes_two_cores_most_of_a_year():
  config = experiments.load_experiment('oanet_r50fpn_coco')
  # 1.6 million images of 12 s, 1,333 of 1,344 columns: 19.04 million seconds.
  assert cpu_time.days_on_cpu(config, 2) == pytest.approx(220.4, abs=0.1)
  assert cpu_time.days_on_cpu(config, 8) == pytest.approx(55.1, abs=0.1)


def test_only_long_trainings_without_a_gpu_are_warned_of(caplog, monkeypatch):
  monkeypatch.setattr(cpu_time.os, 'cpu_count', lambda: 2)
  on_cpu, on_gpu = Cluster(devices.mirrored(devices.ONE)), Cluster(strategy_over('GPU', 1))

  def warning(experiment, cluster, files=()):
    caplog.clear()
    with caplog.at_level(logging.WARNING, 'oanet_tf'):
      cpu_time.warn_without_gpu(experiments.load_experiment(experiment, files), cluster)
    return caplog.text

  long = warning('oanet_r50fpn_coco', on_cpu)
  for part in ('1,600,000 images of 800 × 1333', '220 days', '2 CPU cores', 'and-cuda'):
    assert part in long
  assert warning('oanet_r101fpn_coco', on_cpu)
  assert not warning('oanet_r50fpn_coco', on_gpu)
  for quick in ('oanet_synthetic', 'oanet_mobilenetv2', 'srm_only_synthetic', 'srm_only_coco'):
    assert not warning(quick, on_cpu), quick
  assert not warning('oanet_r50fpn_coco', on_cpu, [OVERFIT])


@pytest.mark.parametrize(('mode', 'num_warnings'), [('train', 1), ('eval', 0)])
def test_the_warning_follows_the_first_line(mode, num_warnings, caplog, monkeypatch, tmp_path):
  """Before the network is built; here the data is missing."""
  monkeypatch.setattr(cpu_time.os, 'cpu_count', lambda: 2)
  config = experiments.load_experiment(
    'oanet_r50fpn_coco', (), 'runtime.distribution_strategy=one_device'
  )
  with caplog.at_level(logging.INFO, 'oanet_tf'), pytest.raises(InputError):
    loop.run(config, tmp_path, mode)
  ours = [record for record in caplog.records if record.name.startswith('oanet_tf')]
  doing = 'training' if mode == 'train' else 'evaluating'
  assert ours[0].getMessage().startswith(f'{doing} on the CPU (2 cores), 1 replica, in ')
  assert ['220 days' in record.getMessage() for record in ours[1:]] == [True] * num_warnings
