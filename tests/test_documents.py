"""The pages for readers: what they point at exists."""

import pathlib
import re

import pytest
import yaml

import oanet_tf
from oanet_tf.__main__ import COMMANDS
from tests.scripts import draw_architecture

ROOT = pathlib.Path(__file__).resolve().parents[1]
FOLDERS = ('.github', 'configs', 'oanet_tf', 'scripts', 'tfrecords')
PAGES = [ROOT / 'README.md', *(page for name in FOLDERS for page in (ROOT / name).rglob('*.md'))]

LINK = re.compile(r'\[[^\]]*\]\(([^)\s]+)\)')
SCRIPT = re.compile(r'(?<![\w/.])scripts/\w+\.(?:sh|py|yaml)')
MODULE = re.compile(r'-m (oanet_tf[\w.]*)')
COMMAND = re.compile(r'^(?:\.venv/bin/)?oanet (\w+)', re.MULTILINE)


def anchors(page):
  """Of the headings, as GitHub makes them."""
  headings = re.findall(r'^#+ (.*)$', page.read_text(), re.MULTILINE)
  return {re.sub(r'[^\w\- ]', '', heading.lower()).replace(' ', '-') for heading in headings}


@pytest.mark.parametrize('page', PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_points_at_exists(page):
  text = page.read_text()
  for link in LINK.findall(text):
    if link.startswith('https://'):
      continue
    path, _, anchor = link.partition('#')
    target = (page.parent / path).resolve() if path else page
    assert target.exists(), link
    assert not anchor or anchor in anchors(target), link
  for script in SCRIPT.findall(text):
    assert (ROOT / script).is_file(), script
  for command in COMMAND.findall(text):
    assert command in COMMANDS, command
  for module in MODULE.findall(text):
    path = ROOT / module.replace('.', '/')
    assert path.with_suffix('.py').is_file() or (path / '__main__.py').is_file(), module


def test_the_readme_is_short():
  assert len((ROOT / 'README.md').read_text().splitlines()) <= 180


def test_the_citation_is_of_this_version():
  citation = yaml.safe_load((ROOT / 'CITATION.cff').read_text())
  assert citation['cff-version'] == '1.2.0' and citation['version'] == oanet_tf.__version__
  authors = [author['family-names'] for author in citation['preferred-citation']['authors']]
  assert authors == ['Liu', 'Peng', 'Yu', 'Wang', 'Liu', 'Yu', 'Jiang']


def test_the_architecture_is_drawn_with_names_that_the_code_has():
  draw_architecture.check_names()
  assert draw_architecture.OUTPUT.read_text() == draw_architecture.picture()
