"""The report's command line, on evaluations made without a network."""

import base64
import html.parser
import io
import json
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from oanet_tf import report
from oanet_tf.data import parallel
from oanet_tf.data.categories import Category, PanopticCategories
from tests.end_to_end import one_line_error, run_command
from tests.reporting.evaluations import PERSON, SKY, TIE, write_evaluation


@pytest.fixture
def run(monkeypatch, capsys):
  return lambda *arguments: run_command(monkeypatch, capsys, report.main, *arguments)


@pytest.fixture
def evaluation(tmp_path, categories):
  folder = tmp_path / 'model' / 'evaluation'
  folder.mkdir(parents=True)
  write_evaluation(folder, categories)
  return folder


class Page(html.parser.HTMLParser):
  """The page's text, tags and tables.

  Attributes:
    text: of all elements.
    tables: rows of cells' texts.
    tags: [(name, attributes)].
  """

  def __init__(self, content):
    super().__init__()
    self.text, self.tables, self.tags = '', [], []
    self._in_cell = False
    self.feed(content)

  def handle_starttag(self, tag, attributes):
    self.tags.append((tag, dict(attributes)))
    if tag == 'table':
      self.tables.append([])
    if tag == 'tr':
      self.tables[-1].append([])
    if tag in ('td', 'th'):
      self.tables[-1][-1].append('')
      self._in_cell = True

  def handle_endtag(self, tag):
    if tag in ('td', 'th'):
      self._in_cell = False

  def handle_data(self, data):
    self.text += data
    if self._in_cell:
      self.tables[-1][-1][-1] += data


def read(path):
  return Page(path.read_text(encoding='utf-8'))


def test_what_the_page_says(run, evaluation, tmp_path):
  output = tmp_path / 'new' / 'report.html'
  code, stdout, _ = run('--results', evaluation, '--output', output)
  assert code == 0 and stdout == f'{output}\n'
  page = read(output)
  assert '<title>srm against heuristic: model/evaluation</title>' in output.read_text()
  # By hand. 1, 3 and 5: SRM finds the tie, and in 3 both do; 2 and 4: it is a mistake of SRM's.
  assert 'better in 2, worse in 2 and equal in 2' in page.text
  fusions, by_category, orders, *instances = page.tables
  assert [row[0] for row in fusions] == ['Fusion', 'heuristic', 'srm', 'srm − heuristic']
  names = ('Category', 'PQ heuristic', 'PQ srm', 'Difference', 'PQ, 0 to 100', 'Segments', 'Kind')
  assert tuple(by_category[0]) == names
  assert {row[0]: (row[5], row[6]) for row in by_category[1:]} == {
    'person': ('6', 'thing'),
    'tie': ('3', 'thing'),
    'sky': ('6', 'stuff'),
  }
  # The tie of 6 × 20 pixels lies on the person in four images, truly in two of them.
  assert orders[1][:9] == ['tie', 'person', '4', '2', '2', '240', '240', '0', '0']
  assert len(orders) == 2
  assert 'disagree about the category of 480 pixels. 480 of them are counted' in page.text
  assert re.findall(r'Image (\d): PQ ([+−])', page.text) == [
    ('1', '+'),
    ('5', '+'),
    ('2', '−'),
    ('4', '−'),
  ]
  assert len(instances) == 4
  assert instances[0][1:] == [
    ['person 1', '0.997', '0.325', '936', '816'],
    ['tie 2', '0.662', '0.878', 'hidden', '120'],
  ]
  # The category that nobody has is folded away.
  assert 'neither truth nor prediction has: 1' in page.text and 'grass' in page.text


def test_scores_are_those_of_the_evaluation(run, evaluation, tmp_path):
  results = json.loads((evaluation / 'results.json').read_text())
  run('--results', evaluation, '--output', tmp_path / 'report.html')
  fusions, by_category, *_ = read(tmp_path / 'report.html').tables
  for row in fusions[1:3]:
    scores = [results[row[0]][group] for group in ('All', 'Things', 'Stuff')]
    expected = [f'{100 * score[key]:.1f}' for score in scores for key in ('pq', 'sq', 'rq')]
    assert row[1:] == expected
  of_name = {'person': PERSON, 'tie': TIE, 'sky': SKY}
  for name, *cells in by_category[1:]:
    pq = [results[f]['per_class'][str(of_name[name])]['pq'] for f in ('heuristic', 'srm')]
    assert cells[:2] == [f'{100 * value:.1f}' for value in pq]
  differences = [float(row[3].replace('−', '-')) for row in by_category[1:]]
  assert differences == sorted(differences, reverse=True) and differences[0] > 0


def test_pictures_and_layers(run, evaluation, tmp_path):
  run('--results', evaluation, '--output', tmp_path / 'report.html', '--num_pictures', 1)
  content = (tmp_path / 'report.html').read_text()
  jpegs = re.findall(r'--picture:url\(data:image/jpeg;base64,([^)]*)\)', content)
  with Image.open(io.BytesIO(base64.b64decode(jpegs[0]))) as picture:
    assert len(jpegs) == 2 and picture.size == (96, 72)
  layers = [a['src'] for tag, a in read(tmp_path / 'report.html').tags if tag == 'img']
  pictures = [
    np.asarray(Image.open(io.BytesIO(base64.b64decode(url.removeprefix('data:image/png;base64,')))))
    for url in layers
  ]
  # Truth, heuristic, SRM, ranking map; with the loss the heuristic is right.
  truth, heuristic, srm, ranking_map = pictures[:4]
  assert (truth == srm).all() and (truth != heuristic).any()
  assert (pictures[4] == pictures[5]).all() and (pictures[4] != pictures[6]).any()
  # The map is shown where instances are: the person with the tie on it.
  assert (ranking_map[..., 3] > 0).mean() == pytest.approx(36 * 26 / (48 * 64), abs=0.01)


def test_the_other_way_round_gains_are_losses(run, evaluation, tmp_path):
  output = tmp_path / 'report.html'
  run('--results', evaluation, '--output', output, '--compare', ' srm , heuristic')
  page = read(output)
  assert re.findall(r'Image (\d): PQ ([+−])', page.text) == [
    ('2', '+'),
    ('4', '+'),
    ('1', '−'),
    ('5', '−'),
  ]
  assert page.tables[2][1][:9] == ['person', 'tie', '4', '2', '2', '240', '240', '0', '0']


def test_without_details_there_are_tables_and_advice(run, tmp_path, categories):
  write_evaluation(tmp_path, categories, details=False)
  code, _, _ = run('--results', tmp_path, '--output', tmp_path / 'report.html')
  page = read(tmp_path / 'report.html')
  assert code == 0 and len(page.tables) == 2
  assert 'oanet evaluate --model_dir' in page.text
  assert 'Segments' not in page.tables[1][0]
  # Grass is in no prediction.
  assert len(page.tables[1]) == 4 and 'no prediction has: 1' in page.text
  assert 'Order' not in page.text and 'Image' not in page.text.replace('Image by', '')


@pytest.mark.parametrize('num_images', [0, 3])
def test_without_images_or_differences(run, tmp_path, categories, num_images):
  # In the third image both fusions show the same.
  images = write_evaluation(tmp_path, categories, num_images)
  for image in images:
    for name in ('truth', 'srm', 'heuristic'):
      folder = tmp_path / 'details' if name == 'truth' else tmp_path
      assert (folder / name / f'{image.image_id}.png').is_file()
  output = tmp_path / 'report.html'
  code, _, _ = run('--results', tmp_path, '--output', output, '--num_pictures', 0)
  assert code == 0
  assert 'In no image is srm better than heuristic' in read(output).text


def test_more_fusions_than_two(run, evaluation, tmp_path):
  results = json.loads((evaluation / 'results.json').read_text())
  results['oracle'] = results['srm']
  (evaluation / 'results.json').write_text(json.dumps(results))
  run('--results', evaluation, '--output', tmp_path / 'report.html')
  rows = [row[0] for row in read(tmp_path / 'report.html').tables[0]]
  assert rows == ['Fusion', 'heuristic', 'srm', 'oracle', 'srm − heuristic']


def test_the_same_evaluation_gives_the_same_bytes_by_any_number_of_processes(
  run, tmp_path, categories, monkeypatch
):
  write_evaluation(tmp_path / 'evaluation', categories, num_images=18)
  contents = []
  for images_at_a_time in (100, 9):
    monkeypatch.setattr(parallel, '_IMAGES_AT_A_TIME', images_at_a_time)
    code, _, stderr = run(
      '--results', tmp_path / 'evaluation', '--output', tmp_path / 'a.html', '--overwrite'
    )
    assert code == 0 and 'comparing' in stderr and 'drawing' in stderr
    contents.append((tmp_path / 'a.html').read_bytes())
  assert contents[0] == contents[1]


def test_names_cannot_be_markup(run, tmp_path):
  evil = '<script>alert("1")</script>&$title'
  categories = PanopticCategories(
    [
      Category(PERSON, evil, True, (200, 0, 0)),
      Category(TIE, "tie' onload='x", True, (200, 200, 0)),
      Category(SKY, '</style>', False, (0, 0, 200)),
    ]
  )
  folder = tmp_path / '<b>$'
  folder.mkdir()
  write_evaluation(folder, categories)
  code, _, _ = run('--results', folder, '--output', tmp_path / 'report.html')
  page = read(tmp_path / 'report.html')
  assert code == 0 and page.tables[2][1][:2] == ["tie' onload='x", evil]
  names = [name for name, _ in page.tags]
  assert names.count('script') == names.count('style') == 1 and 'b' not in names
  assert not any('onload' in attributes for _, attributes in page.tags)


def test_nothing_comes_from_elsewhere(run, evaluation, tmp_path):
  run('--results', evaluation, '--output', tmp_path / 'report.html')
  for _, attributes in read(tmp_path / 'report.html').tags:
    for key in ('src', 'href'):
      assert attributes.get(key, '#')[:5] in ('data:', '#', *(f'#{x}'[:5] for x in SECTIONS))
  assert '://' not in (tmp_path / 'report.html').read_text()


SECTIONS = ('fusions', 'categories', 'order', 'largest-gains', 'largest-losses')


def test_links_lead_to_sections(run, evaluation, tmp_path):
  run('--results', evaluation, '--output', tmp_path / 'report.html')
  tags = read(tmp_path / 'report.html').tags
  assert [a['href'] for tag, a in tags if tag == 'a'] == [f'#{name}' for name in SECTIONS]
  assert [a['id'] for tag, a in tags if tag == 'section'] == list(SECTIONS)


def truncate(path):
  path.write_bytes(path.read_bytes()[:50])


def drop_an_image(path):
  content = json.loads(path.read_text())
  content['annotations'].pop()
  path.write_text(json.dumps(content))


def drop_a_category(path):
  content = json.loads(path.read_text())
  del content['srm']['per_class'][str(TIE)]
  path.write_text(json.dumps(content))


def rename_a_category(path):
  content = json.loads(path.read_text())
  content['categories'][0]['name'] = 'another'
  path.write_text(json.dumps(content))


def exchange_instances(path):
  content = json.loads(path.read_text())
  content['images'][0]['detections'].reverse()
  for one in content['images'][0]['detections']:
    one['category_id'] = PERSON + TIE - one['category_id']
  path.write_text(json.dumps(content))


@pytest.mark.parametrize(
  ('name', 'damage', 'message'),
  [
    ('results.json', lambda path: path.unlink(), 'no such file'),
    ('results.json', truncate, 'JSON'),
    ('results.json', lambda path: path.write_text('[]'), 'results.json'),
    ('results.json', lambda path: path.write_text('{}'), "'heuristic'"),
    (
      'results.json',
      lambda path: path.write_text('{"heuristic": 1, "srm": 2}'),
      'results.json',
    ),
    ('results.json', drop_a_category, 'results.json'),
    ('srm.json', lambda path: path.unlink(), 'srm.json'),
    ('srm.json', lambda path: path.write_text('{}'), 'annotations'),
    ('srm.json', drop_an_image, 'image 6'),
    ('srm.json', rename_a_category, 'heuristic.json: '),
    ('details/truth.json', rename_a_category, 'heuristic.json: '),
    ('details/truth.json', drop_an_image, 'image 6'),
    ('heuristic/1.png', lambda path: path.unlink(), '1.png (image 1): '),
    ('heuristic/1.png', truncate, 'heuristic/1.png'),
    ('details/truth.json', lambda path: path.unlink(), 'no such file'),
    ('details/detections.json', exchange_instances, 'heuristic.json'),
    ('details/pictures/1.jpg', lambda path: path.unlink(), 'No such file'),
    ('details/ranking_maps/1.png', truncate, 'ranking_maps/1.png'),
  ],
)
def test_damaged_evaluations(run, evaluation, tmp_path, name, damage, message):
  damage(evaluation / name)
  line = one_line_error(run('--results', evaluation, '--output', tmp_path / 'report.html'))
  assert message in line and str(evaluation) in line
  assert not list(tmp_path.glob('*.html*')) and not list(tmp_path.glob('.*'))


def test_another_page_is_replaced_only_if_told(run, evaluation, tmp_path):
  page = tmp_path / 'page.html'
  page.write_text('mine')
  arguments = ('--results', evaluation, '--output', page)
  assert f'{page}: ' in one_line_error(run(*arguments))
  assert page.read_text() == 'mine'
  assert run(*arguments, '--overwrite')[0] == 0 and page.read_text() != 'mine'


def test_folders_that_are_none(run, evaluation, tmp_path):
  line = one_line_error(run('--results', tmp_path / 'no', '--output', tmp_path / 'r.html'))
  assert f'{tmp_path}/no: ' in line
  line = one_line_error(run('--results', evaluation, '--output', tmp_path / 'model'))
  assert f'{tmp_path}/model: ' in line
  line = one_line_error(
    run('--results', evaluation, '--output', evaluation / 'srm.json' / 'report.html')
  )
  assert 'srm.json' in line


def test_the_page_opens_in_a_browser(run, evaluation, tmp_path, monkeypatch):
  opened = []
  monkeypatch.setattr('webbrowser.open', lambda url: opened.append(url) or True)
  output = tmp_path / 'a page.html'
  code, _, _ = run('--results', evaluation, '--output', output, '--open')
  assert code == 0 and opened == [f'file://{tmp_path}/a%20page.html']
  monkeypatch.setattr('webbrowser.open', lambda url: False)
  assert 'a page.html: ' in one_line_error(
    run('--results', evaluation, '--output', output, '--open')
  )
  assert output.exists()


def test_a_fusion_that_was_not_evaluated(run, evaluation, tmp_path):
  outcome = run(
    '--results', evaluation, '--output', tmp_path / 'report.html', '--compare', 'srm,upsnet'
  )
  assert "'upsnet'" in one_line_error(outcome)


@pytest.mark.parametrize('compare', ['srm', 'srm,srm', 'srm,', 'a,b,c', ''])
def test_compare_takes_two_fusions(run, evaluation, tmp_path, compare):
  code, _, stderr = run('--results', evaluation, '--output', tmp_path / 'r', '--compare', compare)
  assert code == 2 and '--compare' in stderr.splitlines()[-1]


@pytest.mark.parametrize('number', ['-1', '1.5', 'x'])
def test_number_of_pictures(run, evaluation, tmp_path, number):
  code, _, stderr = run(
    '--results', evaluation, '--output', tmp_path / 'r', f'--num_pictures={number}'
  )
  assert code == 2 and f"--num_pictures: '{number}'" in stderr


def test_help_loads_nothing_heavy():
  script = (
    'import sys; from oanet_tf import report\n'
    'try: report.parse_arguments(["--help"])\n'
    'finally: print("loaded:", *{"numpy", "scipy", "tensorflow", "PIL"} & set(sys.modules))'
  )
  done = subprocess.run([sys.executable, '-c', script], capture_output=True, text=True)
  assert '--compare FIRST,SECOND' in done.stdout and done.stdout.endswith('loaded:\n')


def test_the_report_needs_no_tensorflow(evaluation, tmp_path):
  script = (
    'import sys; from oanet_tf import report; report.main()\nassert "tensorflow" not in sys.modules'
  )
  arguments = ['--results', evaluation, '--output', tmp_path / 'report.html']
  subprocess.run([sys.executable, '-c', script, *arguments], check=True, capture_output=True)


def test_a_built_package_has_the_template(tmp_path):
  root = report.pathlib.Path(report.__file__).parents[1]
  command = [sys.executable, 'setup.py', '--quiet', 'build_py', '--build-lib', tmp_path / 'built']
  command += ['egg_info', '--egg-base', tmp_path]
  subprocess.run(command, check=True, capture_output=True, cwd=root)
  names = {path.name for path in (tmp_path / 'built' / 'oanet_tf' / 'reporting').iterdir()}
  assert {'report.html', 'report.css', 'report.js'} <= names
