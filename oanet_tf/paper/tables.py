"""The paper's Tables 1 to 5, and one of options beyond it, as data.

Each row says what is trained and scored, and what the paper found. Rows that share a training name
the same configs, so that it runs once. No gradient flows out of the ranking module, so a network
with the module, merged by detection score, is the paper's baseline.
"""

import pathlib
from typing import NamedTuple

CONFIGS = pathlib.Path(__file__).resolve().parents[2] / 'configs' / 'paper'
# The config of all networks, in that folder: the experiments' defaults go beyond the paper.
PAPERS_FUSION = 'fusion'

PQ = (('All', 'pq', 'PQ'), ('Things', 'pq', 'PQ Th'), ('Stuff', 'pq', 'PQ St'))
# The paper's DQ is what its scorer calls RQ.
PQ_SQ_DQ = tuple(
  (group, quality, f'{name}{suffix}')
  for quality, name in (('pq', 'PQ'), ('sq', 'SQ'), ('rq', 'DQ'))
  for group, suffix in (('All', ''), ('Things', ' Th'), ('Stuff', ' St'))
)


class Variant(NamedTuple):
  """What a name in the rows means on a dataset.

  Attributes:
    label: text in the tables.
    config: name in configs/paper/, applied over the dataset's experiment; '' for none.
  """

  label: str
  config: str = ''


class Dataset(NamedTuple):
  """A dataset on which the tables can be made.

  Attributes:
    title: name in the tables.
    experiment: trains a network.
    srm_experiment: trains the ranking module alone.
    backbones: 'small' and 'large', which the paper compares.
    variants: by name, configs of rows that differ between datasets.
  """

  title: str
  experiment: str
  srm_experiment: str
  backbones: dict[str, Variant]
  variants: dict[str, Variant]


DATASETS = {
  'synthetic': Dataset(
    'OccludedScenes',
    'oanet_synthetic',
    'srm_only_synthetic',
    {'small': Variant('ResNet-18 ×½'), 'large': Variant('ResNet-34 ×½', 'resnet34')},
    {'stuff_norm': Variant('stuff head without group norm', 'beyond_no_stuff_group_norm')},
  ),
  'coco': Dataset(
    'COCO val2017',
    'oanet_r50fpn_coco',
    'srm_only_coco',
    {'small': Variant('ResNet-50'), 'large': Variant('ResNet-101', 'resnet101')},
    {'stuff_norm': Variant('stuff head with group norm', 'beyond_stuff_group_norm')},
  ),
}


class Row(NamedTuple):
  """A row of a table.

  Attributes:
    cells: its names; those of the dataset's backbones and variants are replaced by their labels.
    paper: the paper's scores in percent, in the order of the table's; () if it has none.
    config: of the network's training, in configs/paper/ or a variant's name; '' for the experiment
      with the paper's fusion.
    backbone: of the network, 'small' or 'large'.
    srm: config of a ranking module trained alone, which replaces the network's own.
    scoring: config that is applied in evaluation only.
    fusion: the fusion that is scored.
  """

  cells: tuple[str, ...]
  paper: tuple[float, ...] = ()
  config: str = ''
  backbone: str = 'small'
  srm: str = ''
  scoring: str = ''
  fusion: str = 'heuristic'


class Table(NamedTuple):
  """A table.

  Attributes:
    title: what it shows.
    heads: of the columns with names.
    scores: (group, quality, head) of the other columns.
    rows: from top to bottom.
  """

  title: str
  heads: tuple[str, ...]
  scores: tuple[tuple[str, str, str], ...]
  rows: tuple[Row, ...]


PAPER_TABLES = {
  '1': Table(
    'Table 1. Loss balance between instance and stuff segmentation',
    ('λ',),
    PQ,
    (
      Row(('0.2',), (36.9, 45.0, 24.6), 'lambda_0.20'),
      Row(('0.25',), (37.2, 45.4, 24.9)),
      Row(('0.33',), (36.9, 44.4, 25.4), 'lambda_0.33'),
      Row(('0.50',), (36.5, 43.5, 25.9), 'lambda_0.50'),
      Row(('0.75',), (35.3, 41.9, 25.4), 'lambda_0.75'),
      # It "could not converge" (section 4.3).
      Row(('1.0',), (), 'lambda_1.00'),
    ),
  ),
  '2': Table(
    'Table 2. Supervision of the stuff branch',
    ('Stuff-SC', 'Object-SC'),
    PQ,
    (
      Row(('✓', '-'), (36.7, 43.8, 25.9), 'stuff_only'),
      Row(('✓', '✓'), (37.2, 45.4, 24.9)),
    ),
  ),
  '3': Table(
    'Table 3. The spatial ranking module',
    ('Methods', 'backbone'),
    PQ_SQ_DQ,
    (
      Row(('baseline', 'small'), (37.2, 45.4, 24.9, 77.1, 81.5, 70.6, 45.7, 54.4, 32.5)),
      Row(
        ('w/pano-instance GT', 'small'),
        (36.1, 43.5, 24.9, 76.1, 80.0, 70.3, 44.5, 52.4, 32.7),
        'pano_instance_gt',
      ),
      Row(
        ('w/spatial ranking module', 'small'),
        (39.0, 48.3, 24.9, 77.1, 81.4, 70.6, 47.8, 58.0, 32.5),
        fusion='srm',
      ),
      Row(
        ('baseline', 'large'),
        (38.8, 46.9, 26.6, 78.2, 82.0, 72.5, 47.4, 55.9, 34.5),
        backbone='large',
      ),
      Row(
        ('w/spatial ranking module', 'large'),
        (40.7, 50.0, 26.6, 78.2, 82.0, 72.5, 49.6, 59.7, 34.5),
        backbone='large',
        fusion='srm',
      ),
    ),
  ),
  '4': Table(
    'Table 4. What stuff and instance branch share',
    ('Methods', 'backbone'),
    PQ,
    (
      Row(('no', 'small'), (36.5, 44.4, 24.6), 'sharing_none'),
      Row(('res1-res5', 'small'), (37.0, 44.8, 25.2), 'sharing_backbone'),
      Row(('+ skip-connection', 'small'), (37.2, 45.4, 24.9)),
      Row(('no', 'large'), (38.2, 46.3, 26.0), 'sharing_none', 'large'),
      Row(('+ skip-connection', 'large'), (38.8, 46.9, 26.6), backbone='large'),
    ),
  ),
  '5': Table(
    'Table 5. Convolutions of the spatial ranking module',
    ('Conv Settings',),
    PQ,
    (
      Row(('1 × 1',), (38.4, 47.4, 24.9), srm='srm_1x1', fusion='srm'),
      Row(('3 × 3',), (38.7, 47.8, 24.9), srm='srm_3x3', fusion='srm'),
      Row(('1 × 7 + 7 × 1',), (39.0, 48.3, 24.9), srm='srm_1x7_7x1', fusion='srm'),
    ),
  ),
}

# Each of the other rows changes one thing of the first.
_BEYOND = Table(
  'Options beyond the paper',
  ('Methods',),
  PQ,
  (
    Row(('as it is',), fusion='srm'),
    Row(('stuff_norm',), config='stuff_norm', fusion='srm'),
    Row(('Eq. 3 between categories alone',), scoring='beyond_between_categories', fusion='srm'),
    Row(('Eq. 3 over conflicting pixels',), scoring='beyond_conflicting_pixels', fusion='srm'),
    Row(('class-agnostic suppression',), scoring='beyond_suppression', fusion='srm'),
  ),
)

TABLES = {**PAPER_TABLES, 'beyond': _BEYOND}
