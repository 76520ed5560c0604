"""The scorer's command line against other packages on the same files, and on bad ones."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from oanet_tf import pq
from oanet_tf.data.categories import PanopticCategories
from oanet_tf.data.panoptic_json import read_annotations
from oanet_tf.evaluation.coco_results import (
  PanopticResultsWriter,
  read_pairs,
  read_results,
  read_segments,
)
from oanet_tf.evaluation.panoptic_quality import PanopticQuality
from tests.categories import CATEGORIES, DOG, GRASS, PERSON, SKY
from tests.end_to_end import one_line_error, run_command
from tests.references import approx, panopticapi_scores
from tests.segments import id_map, segments_of_ids
from tests.small_files import small_files


def segments(segment_map, category_ids):
  ids = np.unique(segment_map)
  ids = ids[ids > 0]
  return segments_of_ids(segment_map, {i: category_ids[i] for i in ids.tolist()})


def random_image(seed, shape=(6, 8)):
  rng = np.random.default_rng(seed)
  segment_map = (
    rng.integers(0, 4, [2, 3]).repeat(3, axis=0).repeat(3, axis=1)[: shape[0], : shape[1]]
  )
  return segments(segment_map, {1: PERSON, 2: DOG, 3: (GRASS, SKY)[seed % 2]})


def perturbed(image, seed):
  rng = np.random.default_rng(seed)
  noise = rng.integers(0, 4, image.index.shape)
  moved = np.where(rng.random(image.index.shape) < 0.2, noise, id_map(image))
  return segments(moved, {1: PERSON, 2: DOG, 3: GRASS})


def write(folder, name, images):
  with PanopticResultsWriter(folder, name, CATEGORIES) as writer:
    for image_id, image in images.items():
      writer.write(image_id, f'{image_id}.jpg', image)


def edit(path, change):
  """Changes a JSON file's content in place."""
  content = json.loads(path.read_text())
  change(content)
  path.write_text(json.dumps(content))


def mark_crowds(content):
  for annotation in content['annotations'][::2]:
    for info in annotation['segments_info'][:1]:
      info['iscrowd'] = 1


@pytest.fixture
def files(tmp_path):
  """A folder with `truth` and `pred`, 40 images in two orders; some segments are crowds."""
  truth = {image_id: random_image(image_id) for image_id in range(1, 41)}
  write(tmp_path, 'truth', truth)
  edit(tmp_path / 'truth.json', mark_crowds)
  write(tmp_path, 'pred', {i: perturbed(truth[i], i) for i in reversed(range(1, 41))})
  return tmp_path


def arguments(folder):
  return [
    *('--gt_json', folder / 'truth.json', '--gt_dir', folder / 'truth'),
    *('--pred_json', folder / 'pred.json', '--pred_dir', folder / 'pred'),
  ]


def run(monkeypatch, capsys, *command):
  return run_command(monkeypatch, capsys, pq.main, *command)


def read_metrics(path):
  """As `PanopticQuality.result` gives them: JSON has but strings for keys."""
  result = json.loads(path.read_text())
  result['per_class'] = {int(key): value for key, value in result['per_class'].items()}
  return result


def theirs(other_scores, folder):
  return approx(other_scores(folder / 'truth.json', folder / 'pred.json').result)


def test_the_json_is_that_of_other_packages(files, monkeypatch, capsys, other_scores):
  output = files / 'new' / 'metrics.json'
  code, stdout, stderr = run(
    monkeypatch, capsys, *arguments(files), '--output', output, '--num_workers', 1
  )
  assert code == 0 and '40/40' in stderr
  result = read_metrics(output)
  assert result == theirs(other_scores, files)
  assert 0.1 < result['All']['pq'] < 0.9
  table = stdout.splitlines()
  assert table[0].split() == ['|', 'pred.json']
  assert table[3].split()[2] == f'{100 * result["All"]["pq"]:.1f}'


def test_processes_change_no_bit(files):
  paths = [str(path) for path in arguments(files)[1::2]]
  one, categories = pq.score(*paths, num_workers=1)
  several, _ = pq.score(*paths, num_workers=2)
  assert one == several and categories == CATEGORIES


def test_folders_are_those_beside_the_json(files, monkeypatch, capsys):
  truth, prediction = (str(files / name) for name in ('truth.json', 'pred.json'))
  beside = run(
    monkeypatch, capsys, '--gt_json', truth, '--pred_json', prediction, '--num_workers', 1
  )
  assert beside[1] == run(monkeypatch, capsys, *arguments(files), '--num_workers', 1)[1]


@settings(max_examples=25, deadline=None)
@given(seeds=st.lists(st.integers(0, 999), min_size=1, max_size=3, unique=True))
def test_equals_other_packages_on_random_files(tmp_path_factory, other_scores, seeds):
  folder = tmp_path_factory.mktemp('random')
  truth = {seed: random_image(seed) for seed in seeds}
  write(folder, 'truth', truth)
  edit(folder / 'truth.json', mark_crowds)
  write(folder, 'pred', {seed: perturbed(truth[seed], seed) for seed in seeds})
  result, _ = pq.score(*map(str, arguments(folder)[1::2]), num_workers=1)
  assert result == theirs(other_scores, folder)


def test_real_files(coco_sample, tmp_path, other_scores):
  truth = coco_sample / 'annotations' / 'panoptic_val2017.json'
  categories = PanopticCategories.from_json(truth)
  with PanopticResultsWriter(tmp_path, 'pred', categories) as writer:
    for image_id, image in read_results(truth, truth.with_suffix('')):
      moved = np.roll(image.index, (9, 5), axis=(0, 1))
      writer.write(image_id, f'{image_id}.jpg', image._replace(index=moved))
  paths = [truth, truth.with_suffix(''), tmp_path / 'pred.json', tmp_path / 'pred']
  result, _ = pq.score(*map(str, paths), num_workers=1)
  assert result == approx(other_scores(truth, tmp_path / 'pred.json').result)
  assert result['All']['n'] > 50


def test_pngs_that_are_read_in_pairs_give_the_bits_of_whole_maps(files, coco_sample):
  truth = coco_sample / 'annotations' / 'panoptic_val2017.json'
  for true_json, json_path in ((files / 'truth.json', files / 'pred.json'), (truth, truth)):
    categories = PanopticCategories.from_json(true_json)
    annotations, predictions = (
      {one.image_id: one for one in read_annotations(path, path.with_suffix(''))}
      for path in (true_json, json_path)
    )
    for image_id, annotation in annotations.items():
      pair = (annotation, predictions[image_id])
      by_pairs, by_maps = PanopticQuality(categories), PanopticQuality(categories)
      by_pairs.update_pairs(*read_pairs(*pair))
      by_maps.update(*map(read_segments, pair))
      assert by_pairs.statistics.any()
      np.testing.assert_array_equal(by_pairs.statistics, by_maps.statistics)


def assert_equal_to_others(folder, other_scores):
  result, _ = pq.score(*map(str, arguments(folder)[1::2]), num_workers=1)
  assert result == theirs(other_scores, folder)
  return result


def test_predictions_of_more_images_than_the_truth_has(files, capsys, other_scores):
  edit(files / 'truth.json', without_last)
  assert_equal_to_others(files, other_scores)
  assert 'pred.json: 1 images that' in capsys.readouterr().err


def test_ids_that_the_truth_does_not_list(files):
  areas = {}
  for path in (files / 'truth').glob('*.png'):
    pixels = np.array(Image.open(path))
    pixels[:2, :3] = 9
    Image.fromarray(pixels).save(path)
    areas[int(path.stem)] = np.bincount(pixels[..., 0].ravel(), minlength=5)

  def with_true_areas(content):
    # Panopticapi takes the areas of the JSON.
    for annotation in content['annotations']:
      for info in annotation['segments_info']:
        info['area'] = int(areas[annotation['image_id']][info['id']])

  edit(files / 'truth.json', with_true_areas)
  result, _ = pq.score(*map(str, arguments(files)[1::2]), num_workers=1)
  assert result == theirs(panopticapi_scores, files)
  assert 0.1 < result['All']['pq'] < 0.9


def test_a_predicted_segment_may_have_the_id_0(files):
  def with_0(content):
    for annotation in content['annotations']:
      for info in annotation['segments_info']:
        info['id'] = {2: 0}.get(info['id'], info['id'])

  edit(files / 'pred.json', with_0)
  for path in (files / 'pred').glob('*.png'):
    pixels = np.array(Image.open(path))
    # The void of the prediction becomes the segment 3 where there is one.
    infos = next(
      one['segments_info']
      for one in json.loads((files / 'pred.json').read_text())['annotations']
      if one['file_name'] == path.name
    )
    listed = [info['id'] for info in infos]
    pixels[pixels[..., 0] == 0] = [max(listed), 0, 0]
    pixels[pixels[..., 0] == 2] = [0, 0, 0]
    Image.fromarray(pixels).save(path)
  result, _ = pq.score(*map(str, arguments(files)[1::2]), num_workers=1)
  assert result == theirs(panopticapi_scores, files)


def test_a_true_segment_may_not_have_the_id_0(files, monkeypatch, capsys):
  edit(
    files / 'truth.json',
    lambda content: content['annotations'][0]['segments_info'][0].update(id=0),
  )
  error = one_line_error(run(monkeypatch, capsys, *arguments(files), '--num_workers', 1))
  assert_matches(r'truth.json: annotation 0 .*`id` 0 is not in \[1, ', error)


def test_an_alpha_channel_or_a_palette_changes_nothing(files, other_scores):
  before, _ = pq.score(*map(str, arguments(files)[1::2]), num_workers=1)
  for number, path in enumerate(sorted((files / 'pred').glob('*.png'))):
    png = Image.open(path)
    mode = 'RGBA' if number % 2 else 'P'
    (png.convert('RGBA') if mode == 'RGBA' else png.quantize(8)).save(path)
  after, _ = pq.score(*map(str, arguments(files)[1::2]), num_workers=1)
  assert after == before


def renamed(ids, name_of):
  """Gives the images other ids and file names."""

  def change(content):
    for image in content['images']:
      image['file_name'] = name_of(image['id'])
      image['id'] = ids(image['id'])
    for annotation in content['annotations']:
      annotation['image_id'] = ids(annotation['image_id'])

  return change


@pytest.mark.parametrize(
  ('ids', 'name_of'),
  [
    (lambda i: f'{i:06}', lambda i: f'a\\{i:012}.png'),
    (lambda i: f'city/{i}', lambda i: f'b/{i:012}.jpg'),
    # The ids of other images.
    (lambda i: 41 - i, lambda i: f'{i:012}.jpg'),
    (lambda i: i + 0.0, lambda i: 'no name.jpg'),
  ],
)
def test_images_are_found_by_file_name_where_ids_do_not_fit(files, capsys, ids, name_of):
  edit(files / 'truth.json', renamed(lambda i: i, lambda i: f'{i:012}.jpg'))
  before, _ = pq.score(*map(str, arguments(files)[1::2]), num_workers=1)
  edit(files / 'pred.json', renamed(ids, name_of))
  after, _ = pq.score(*map(str, arguments(files)[1::2]), num_workers=1)
  assert after == before
  assert ('found by file name' in capsys.readouterr().err) == ('no' not in name_of(1))


def test_categories_of_other_names_are_noted(files, capsys):
  edit(files / 'pred.json', lambda content: content['categories'][0].update(name='something'))
  pq.score(*map(str, arguments(files)[1::2]), num_workers=1)
  assert_matches("pred.json: category . is 'something', but '", capsys.readouterr().err)


def without_last(content):
  content['annotations'].pop()


def one_twice(content):
  content['annotations'].append(content['annotations'][0])


def unknown_category(content):
  content['annotations'][0]['segments_info'][0]['category_id'] = 91


def segment_twice(content):
  infos = content['annotations'][0]['segments_info']
  infos.append({**infos[0], 'category_id': 8 if infos[0]['category_id'] == 31 else 31})


def test_a_segment_that_is_listed_twice_alike_counts_once(files, other_scores):
  for name in ('truth', 'pred'):
    edit(
      files / f'{name}.json',
      lambda content: [
        a['segments_info'].extend(a['segments_info']) for a in content['annotations']
      ],
    )
  assert_equal_to_others(files, other_scores)


def test_images_of_other_names_are_noted(files, capsys):
  edit(files / 'pred.json', lambda content: content['images'][0].update(file_name='other.jpg'))
  pq.score(*map(str, arguments(files)[1::2]), num_workers=1)
  assert "is 'other.jpg', not " in capsys.readouterr().err


def no_annotation(content):
  content['annotations'] = []


@pytest.mark.parametrize(
  ('name', 'change', 'message'),
  [
    ('pred', without_last, r'pred.json: .*image 1, .*truth.json'),
    ('pred', one_twice, r'pred.json: image 40 '),
    ('truth', one_twice, r'truth.json: image 1 '),
    (
      'pred',
      unknown_category,
      r'pred.json: image 40: segment 1 .*category 91',
    ),
    ('truth', unknown_category, r'truth.json: image 1: segment . .*category 91'),
    ('pred', segment_twice, r'pred.json: annotation 0 \(image 40\): segment 1 '),
    ('truth', segment_twice, r'truth.json: annotation 0 \(image 1\): segment . '),
    ('truth', no_annotation, r'truth.json: .*annotations'),
    ('pred', no_annotation, r'pred.json: .*image 1'),
    ('truth', dict.clear, r'truth.json: .*annotations'),
    ('truth', lambda content: content.pop('categories'), r'truth.json: .*categories'),
  ],
)
def test_bad_json_is_one_line(files, monkeypatch, capsys, name, change, message):
  edit(files / f'{name}.json', change)
  output = files / 'metrics.json'
  outcome = run(monkeypatch, capsys, *arguments(files), '--output', output, '--num_workers', 1)
  assert_matches(message, one_line_error(outcome))
  assert not output.exists()


def assert_matches(message, text):
  assert re.search(message, text), text


def save(array, **options):
  return lambda path: Image.fromarray(np.asarray(array, np.uint8)).save(path, **options)


@pytest.mark.parametrize(
  ('damage', 'message'),
  [
    (lambda path: path.unlink(), r'no such file'),
    (lambda path: path.write_bytes(b''), r'no picture, or a damaged one \(0 bytes\)'),
    (lambda path: path.write_bytes(path.read_bytes()[:50]), r'damaged'),
    (save(np.zeros([6, 8])), r'PNG L, .*PNG RGB'),
    (save(np.zeros([6, 8, 3]), format='JPEG'), r'JPEG RGB, .*PNG RGB'),
    (save(np.zeros([6, 9, 3])), r'9 × 6'),
  ],
)
@pytest.mark.parametrize('name', ['truth', 'pred'])
def test_a_bad_png_is_one_line(files, monkeypatch, capsys, damage, message, name):
  damage(files / name / '3.png')
  outcome = run(monkeypatch, capsys, *arguments(files), '--num_workers', 1)
  error = one_line_error(outcome)
  assert_matches(message, error)
  assert_matches(rf'{name}/3\.png \(image 3\)', error)


def test_an_id_that_a_prediction_does_not_list(files, monkeypatch, capsys):
  save(np.full([6, 8, 3], 9))(files / 'pred' / '3.png')
  error = one_line_error(run(monkeypatch, capsys, *arguments(files), '--num_workers', 1))
  assert_matches(r'pred/3\.png \(image 3\): segment 592137 ', error)


def test_errors_in_processes_are_one_line_too(files, monkeypatch, capsys):
  (files / 'pred' / '3.png').unlink()
  outcome = run(monkeypatch, capsys, *arguments(files), '--num_workers', 2)
  assert_matches(r'pred/3\.png \(image 3\): ', one_line_error(outcome))


def test_a_segment_of_a_prediction_without_pixels(files, monkeypatch, capsys):
  infos = [{'id': 1, 'category_id': PERSON}, {'id': 70000, 'category_id': PERSON}]
  edit(files / 'pred.json', lambda content: content['annotations'][0].update(segments_info=infos))
  save(np.full([6, 8, 3], [1, 0, 0]))(files / 'pred' / '40.png')
  outcome = run(monkeypatch, capsys, *arguments(files), '--num_workers', 1)
  assert_matches(r'pred/40\.png \(image 40\): segment 70000 ', one_line_error(outcome))


def test_missing_files_and_folders(files, monkeypatch, capsys):
  command = arguments(files)
  for place in range(1, 8, 2):
    changed = [*command]
    changed[place] = files / 'nowhere'
    error = one_line_error(run(monkeypatch, capsys, *changed))
    assert_matches(r'nowhere: ', error)


def test_an_output_is_checked_before_anything_is_scored(files, monkeypatch, capsys):
  before = {path: path.read_bytes() for path in files.rglob('*') if path.is_file()}
  for name in ('truth', 'truth.json', 'pred.json', 'truth.json/scores.json'):
    command = [*arguments(files), '--num_workers', 1, '--overwrite', '--output', files / name]
    outcome = run(monkeypatch, capsys, *command)
    assert_matches(rf'{files / name}: ', one_line_error(outcome))
    assert outcome[1] == '' and 'scoring' not in outcome[2]
  assert {path: path.read_bytes() for path in files.rglob('*') if path.is_file()} == before


def test_an_earlier_output_is_replaced_if_told(files, monkeypatch, capsys):
  output = files / 'scores.json'
  command = [*arguments(files), '--num_workers', 1, '--output', output]
  output.write_text('mine')
  assert_matches(r'scores.json: .*--overwrite', one_line_error(run(monkeypatch, capsys, *command)))
  assert output.read_text() == 'mine'
  assert run(monkeypatch, capsys, *command, '--overwrite')[0] == 0
  assert 'All' in json.loads(output.read_text())


def test_scores_are_printed_though_the_disk_is_full(files, monkeypatch, capsys):
  before = sorted(files.iterdir())
  with small_files(100):
    outcome = run(
      monkeypatch, capsys, *arguments(files), '--num_workers', 1, '--output', files / 'scores.json'
    )
  assert_matches(r'scores.json: ', one_line_error(outcome))
  assert 'person' in outcome[1] and sorted(files.iterdir()) == before


@pytest.mark.parametrize('text', ['0', '-1', 'two', '1.5'])
def test_num_workers_is_positive(monkeypatch, capsys, text):
  code, _, stderr = run(
    monkeypatch, capsys, '--gt_json', 'a', '--pred_json', 'b', '--num_workers', text
  )
  assert code == 2 and f"--num_workers: '{text}'" in stderr


def test_neither_help_nor_scoring_loads_tensorflow(files):
  program = f"""
import sys
from oanet_tf import pq
assert not {{'numpy', 'PIL'}} & set(sys.modules)
pq.score(*{[str(path) for path in arguments(files)[1::2]]!r}, num_workers=1)
assert not {{'tensorflow', 'scipy'}} & set(sys.modules)
"""
  subprocess.run([sys.executable, '-c', program], check=True, capture_output=True)
