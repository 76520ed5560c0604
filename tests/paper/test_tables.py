import pytest

from oanet_tf.config import check as config_check
from oanet_tf.paper import plan
from oanet_tf.paper.tables import CONFIGS, DATASETS, PAPER_TABLES, PAPERS_FUSION, TABLES

# Rows that are the experiment as it is have a config of their own all the same.
NOTHING_NEW = (
  'lambda_0.25',
  'stuff_and_objects',
  'sharing_backbone_and_fpn',
  'srm_1x7_7x1',
)
# The fusions of Table 3, which a row names by itself.
FUSIONS = ('heuristic', 'srm')


@pytest.mark.parametrize('name', NOTHING_NEW)
@pytest.mark.parametrize('dataset', DATASETS)
def test_what_the_experiment_has_already(name, dataset):
  experiment = DATASETS[dataset].experiment
  settings = config_check.resolve_experiment(experiment, [plan.config_path(name)])
  assert settings == config_check.experiment_settings(experiment)


@pytest.mark.parametrize('table', TABLES.values(), ids=TABLES)
def test_scores_fit_their_heads(table):
  for row in table.rows:
    assert len(row.cells) == len(table.heads)
    assert len(row.paper) in (0, len(table.scores))


def test_every_config_is_of_a_row():
  used = {name for table in TABLES.values() for row in table.rows
          for name in (row.config, row.srm, row.scoring)}  # fmt: skip
  for dataset in DATASETS.values():
    assert dataset.variants.keys() == DATASETS['synthetic'].variants.keys()
    used -= dataset.variants.keys()
    variants = (*dataset.backbones.values(), *dataset.variants.values())
    used |= {variant.config for variant in variants}
  named = {*used - {''}, *NOTHING_NEW, *FUSIONS, PAPERS_FUSION}
  assert {path.stem for path in CONFIGS.glob('*.yaml')} == named


def test_gains_are_those_that_the_text_tells():
  """Section 4: 0.5 by object context, 0.7 and 0.6 by sharing, 1.8 and 1.9 by the module."""

  def gain(table, better, worse):
    rows = TABLES[table].rows
    return round(rows[better].paper[0] - rows[worse].paper[0], 1)

  assert gain('2', 1, 0) == 0.5
  assert (gain('4', 2, 0), gain('4', 4, 3)) == (0.7, 0.6)
  assert (gain('3', 2, 0), gain('3', 4, 3)) == (1.8, 1.9)


def test_all_tables_are_the_papers():
  assert list(PAPER_TABLES) == ['1', '2', '3', '4', '5']
  assert not any(row.paper for row in TABLES['beyond'].rows)


@pytest.mark.parametrize('dataset', DATASETS)
def test_each_option_beyond_the_paper_changes_the_experiment(dataset, tmp_path):
  """And the first row changes nothing."""
  experiment, papers = DATASETS[dataset].experiment, plan.config_path(PAPERS_FUSION)
  as_it_is = config_check.resolve_experiment(experiment, [papers])
  for number, row in enumerate(TABLES['beyond'].rows):
    scoring = plan.scoring_of(row, DATASETS[dataset], plan.Options(tmp_path), 0)
    assert scoring.srm is None and row.fusion == 'srm'
    configs = [*scoring.network.configs, *filter(None, [scoring.config])]
    assert len(configs) == min(number, 1)
    files = [papers, *map(plan.config_path, configs)]
    settings = config_check.resolve_experiment(experiment, files)
    assert (settings == as_it_is) == (number == 0), row


@pytest.mark.parametrize('dataset', DATASETS)
def test_the_papers_tables_are_by_the_papers_letter(dataset, tmp_path):
  """Eq. 3 orders all pairs of instances, and nothing is suppressed, whatever the defaults are."""
  for table in PAPER_TABLES.values():
    for row in table.rows:
      scoring = plan.scoring_of(row, DATASETS[dataset], plan.Options(tmp_path), 0)
      assert not scoring.config
      settings = scoring.network.settings
      assert settings['task.model.fusion.ranking_pairs'].value == 'all'
      assert settings['task.model.fusion.suppression_threshold'].value == 1.0
  for name in FUSIONS:
    settings = config_check.resolve_experiment(
      DATASETS[dataset].experiment, [plan.config_path(name)]
    )
    assert settings['task.model.fusion.method'].value == name
    assert settings['task.model.fusion.suppression_threshold'].value == 1.0
    if name == 'srm':
      assert settings['task.model.fusion.ranking_pairs'].value == 'all'
