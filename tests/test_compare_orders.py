import json

import pytest

from oanet_tf.errors import InputError
from tests.scripts import compare_orders


def write(folder, name, **scores):
  path = folder / name / 'evaluation' / 'results.json'
  path.parent.mkdir(parents=True)
  path.write_text(json.dumps({fusion: {'Things': {'pq': pq}} for fusion, pq in scores.items()}))


def test_means_spreads_and_shares_of_the_gap(tmp_path):
  write(tmp_path, 'context_0', heuristic=0.5, class_prior=0.5, srm=0.55, pairwise=0.65, oracle=0.7)
  write(tmp_path, 'context_1', heuristic=0.6, class_prior=0.5, srm=0.65, pairwise=0.7, oracle=0.7)
  *_, row = compare_orders.table(compare_orders.read(tmp_path)).splitlines()
  # Shares: 0 and −100 %, 25 and 50 %, 75 and 100 %.
  assert row == (
    '| by context, 2 seeds | 55.0 ± 7.1 | 50.0 ± 0.0 (-50%) | 60.0 ± 7.1 (38%) | '
    '67.5 ± 3.5 (88%) | 70.0 ± 0.0 |'
  )


def test_one_seed_has_no_spread(tmp_path):
  write(tmp_path, 'category_2', heuristic=0.5, class_prior=0.5, srm=0.55, pairwise=0.65, oracle=0.7)
  *_, row = compare_orders.table(compare_orders.read(tmp_path)).splitlines()
  assert row == '| by category, 1 seed | 50.0 | 50.0 (0%) | 55.0 (25%) | 65.0 (75%) | 70.0 |'


def test_what_is_missing_is_said(tmp_path):
  with pytest.raises(InputError, match=r'compare_orders\.sh'):
    compare_orders.read(tmp_path)
  write(tmp_path, 'category_0', heuristic=0.5, srm=0.6)
  with pytest.raises(InputError, match=r'category_0.*class_prior, pairwise, oracle'):
    compare_orders.read(tmp_path)
  (tmp_path / 'category_0/evaluation/results.json').write_text('{"srm"')
  with pytest.raises(InputError, match=r'category_0.*cannot be read'):
    compare_orders.read(tmp_path)
