"""The report in a real browser. Debian has one: `apt-get install chromium`."""

import dataclasses
import pathlib

import pytest

from oanet_tf.data.categories import PanopticCategories
from oanet_tf.report import write_report
from tests.reporting.browser import NAMES, Browser, find_chromium
from tests.reporting.evaluations import write_evaluation

pytestmark = pytest.mark.skipif(
  find_chromium() is None, reason=f'no browser on the path ({", ".join(NAMES)})'
)

CATEGORIES_TABLE, ORDERS_TABLE = 1, 2


@pytest.fixture(scope='module')
def page(tmp_path_factory, categories) -> pathlib.Path:
  folder = tmp_path_factory.mktemp('report')
  write_evaluation(folder / 'evaluation', categories)
  write_report(folder / 'evaluation', folder / 'report.html', ('heuristic', 'srm'), 8)
  return folder / 'report.html'


@pytest.fixture(scope='module')
def shared_browser(tmp_path_factory):
  try:
    browser = Browser(tmp_path_factory.mktemp('profile'))
  except (BrokenPipeError, EOFError):
    # Such as Ubuntu's placeholder for a package of another kind.
    pytest.skip(f'{find_chromium()} does not start')
  yield browser
  browser.close()


@pytest.fixture
def browser(shared_browser):
  """The page may not complain, nor ask for anything that is not in itself."""
  shared_browser.problems.clear()
  shared_browser.requests.clear()
  yield shared_browser
  assert shared_browser.problems == []
  elsewhere = [url for url in shared_browser.requests if not url.startswith(('data:', 'file:///'))]
  assert elsewhere == []


def column(browser, table, index):
  """The texts of a column, from top to bottom."""
  return browser.evaluate(
    f'[...document.querySelectorAll("table")[{table}].tBodies[0].rows]'
    f'.map(row => row.cells[{index}].textContent)'
  )


def sort_states(browser, table):
  return browser.evaluate(
    f'[...document.querySelectorAll("table")[{table}].tHead.rows[0].cells]'
    '.map(heading => heading.getAttribute("aria-sort"))'
  )


def click(browser, table, index):
  browser.evaluate(
    f'document.querySelectorAll("table")[{table}].tHead.rows[0].cells[{index}]'
    '.querySelector("button").click()'
  )


def numbers(texts):
  return [float(text.replace('−', '-').replace(',', '')) for text in texts]


def test_a_click_sorts_numbers_from_the_highest_and_a_second_one_from_the_lowest(browser, page):
  browser.open(page)
  assert sort_states(browser, CATEGORIES_TABLE) == [
    'none',
    'none',
    'none',
    'descending',
    None,
    'none',
    'none',
  ]
  before = column(browser, CATEGORIES_TABLE, 1)
  for order, states in ((-1, 'descending'), (1, 'ascending'), (-1, 'descending')):
    click(browser, CATEGORIES_TABLE, 1)
    found = numbers(column(browser, CATEGORIES_TABLE, 1))
    assert found == sorted(numbers(before), key=lambda number, order=order: order * number)
    assert sort_states(browser, CATEGORIES_TABLE) == [
      'none',
      states,
      'none',
      'none',
      None,
      'none',
      'none',
    ]
  assert len(set(before)) == 3  # So that there are orders to tell apart.


def test_rows_stay_whole_and_other_tables_as_they_are(browser, page):
  browser.open(page)
  rows = (
    'Object.fromEntries([...document.querySelectorAll("table")[1].tBodies[0].rows]'
    '.map(row => [row.cells[0].textContent, row.innerHTML]))'
  )
  before, orders = browser.evaluate(rows), sort_states(browser, ORDERS_TABLE)
  click(browser, CATEGORIES_TABLE, 0)
  assert browser.evaluate(rows) == before
  assert sort_states(browser, ORDERS_TABLE) == orders


def test_names_are_sorted_from_a(browser, page):
  browser.open(page)
  click(browser, CATEGORIES_TABLE, 0)
  assert column(browser, CATEGORIES_TABLE, 0) == ['person', 'sky', 'tie']
  click(browser, CATEGORIES_TABLE, 0)
  assert column(browser, CATEGORIES_TABLE, 0) == ['tie', 'sky', 'person']


def test_rows_with_equal_values_keep_their_order(browser, page):
  browser.open(page)
  click(browser, CATEGORIES_TABLE, 0)
  click(browser, CATEGORIES_TABLE, 6)
  assert column(browser, CATEGORIES_TABLE, 6) == ['stuff', 'thing', 'thing']
  assert column(browser, CATEGORIES_TABLE, 0) == ['sky', 'person', 'tie']


def test_numbers_over_a_thousand_are_sorted_by_value(browser, page):
  browser.open(page)
  browser.evaluate(
    'document.querySelectorAll("table")[2].tBodies[0].innerHTML = [9, 1000, 20].map(n => '
    '`<tr><th>x</th><td>y</td><td data-value="${n}">${n.toLocaleString("en")}</td></tr>`).join("")'
  )
  click(browser, ORDERS_TABLE, 2)  # Says that it is sorted in descending order already.
  assert column(browser, ORDERS_TABLE, 2) == ['9', '20', '1,000']
  click(browser, ORDERS_TABLE, 2)
  assert column(browser, ORDERS_TABLE, 2) == ['1,000', '20', '9']


def test_sorting_by_keyboard(browser, page):
  browser.open(page)
  focus = 'document.activeElement.textContent'
  # Tab leads over the links and the first table's box to the headings.
  for _ in range(40):
    browser.press('Tab')
    if browser.evaluate(focus) == 'Category':
      break
  assert browser.evaluate(focus) == 'Category'
  browser.press('Enter', '\r')
  assert column(browser, CATEGORIES_TABLE, 0) == ['person', 'sky', 'tie']
  browser.press(' ', ' ')
  assert column(browser, CATEGORIES_TABLE, 0) == ['tie', 'sky', 'person']
  assert browser.evaluate(focus) == 'Category'  # It is still there.


@pytest.mark.parametrize('width', [320, 360, 700, 1200, 2000])
def test_only_tables_scroll_sideways(browser, page, width):
  browser.open(page, width)
  assert browser.evaluate('document.documentElement.scrollWidth') == width
  boxes = browser.evaluate(
    '[...document.querySelectorAll(".scroll, figure, p")].map(box => '
    '[box.getBoundingClientRect().left, box.getBoundingClientRect().right])'
  )
  assert all(left >= 0 and right <= width for left, right in boxes)
  if width == 360:
    assert browser.evaluate(
      '[...document.querySelectorAll(".scroll")].slice(0, 3).every(box => '
      'box.scrollWidth > box.clientWidth)'
    )


@pytest.mark.parametrize(('width', 'columns'), [(360, 1), (800, 2), (1200, 4)])
def test_panels_stack_on_narrow_screens(browser, page, width, columns):
  browser.open(page, width)
  lefts = browser.evaluate(
    '[...document.querySelector("article").querySelectorAll("figure")]'
    '.map(figure => figure.getBoundingClientRect().left)'
  )
  assert len(lefts) == 5 and len(set(lefts)) == columns
  widths = browser.evaluate(
    '[...document.querySelectorAll(".canvas")].map(box => box.getBoundingClientRect().width)'
  )
  assert min(widths) > 0.8 * width / columns - 24


@pytest.mark.parametrize('width', [360, 800, 1200])
def test_pictures_are_there_and_labels_within(browser, page, width):
  browser.open(page, width)
  sizes = browser.evaluate('[...document.images].map(image => image.naturalWidth)')
  assert len(sizes) == 16 and set(sizes) == {640}
  backgrounds = browser.evaluate(
    '[...document.querySelectorAll(".canvas")].map(box => '
    'getComputedStyle(box, "::before").backgroundImage.slice(0, 27))'
  )
  assert set(backgrounds) == {'url("data:image/jpeg;base64'}
  assert browser.evaluate(
    '[...document.querySelectorAll(".label")].every(label => {'
    '  const [a, b] = [label, label.parentElement].map(x => x.getBoundingClientRect());'
    '  return a.left >= b.left && a.right <= b.right && a.top >= b.top && a.bottom <= b.bottom;'
    '})'
  )
  # The picture is 4 to 3.
  ratio = browser.evaluate(
    '(box => box.width / box.height)(document.querySelector(".canvas").getBoundingClientRect())'
  )
  assert ratio == pytest.approx(4 / 3, abs=0.01)


def luminance(color):
  """Relative luminance by WCAG 2, of a CSS `rgb(…)`."""
  values = [int(value) / 255 for value in color[color.index('(') + 1 : -1].split(',')[:3]]
  red, green, blue = (
    value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in values
  )
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize('dark', [False, True])
def test_text_is_legible_in_light_and_dark(browser, page, dark):
  browser.open(page, dark=dark)
  page_color = browser.evaluate('getComputedStyle(document.body).backgroundColor')
  assert (luminance(page_color) < 0.1) == dark
  card = browser.evaluate('getComputedStyle(document.querySelector(".scroll")).backgroundColor')
  for selector in ('body', '.how', 'nav a', '.gain', '.loss', 'th button', 'figcaption', 'td'):
    color = browser.evaluate(f'getComputedStyle(document.querySelector("{selector}")).color')
    for background in (page_color, card):
      low, high = sorted([luminance(color), luminance(background)])
      # What WCAG 2 asks of small text.
      assert (high + 0.05) / (low + 0.05) >= 4.5, selector


def test_what_does_not_occur_is_folded_away(browser, page):
  browser.open(page)
  seen = 'document.querySelector("details p").checkVisibility()'
  assert not browser.evaluate(seen)
  browser.evaluate('document.querySelector("summary").click()')
  assert browser.evaluate(seen)
  assert browser.evaluate('document.querySelector("details p").textContent') == 'grass'


def test_a_page_without_details(browser, tmp_path, categories):
  write_evaluation(tmp_path, categories, details=False)
  write_report(tmp_path, tmp_path / 'report.html', ('heuristic', 'srm'), 8)
  browser.open(tmp_path / 'report.html', 360)
  assert browser.evaluate('document.documentElement.scrollWidth') == 360
  click(browser, CATEGORIES_TABLE, 0)
  assert column(browser, CATEGORIES_TABLE, 0) == ['person', 'sky', 'tie']


def test_long_names_do_not_widen_the_page(browser, tmp_path, categories):
  long = PanopticCategories(
    [dataclasses.replace(one, name=one.name + 'x' * 200) for one in categories]
  )
  folder = tmp_path / ('y' * 200)
  folder.mkdir()
  write_evaluation(folder, long)
  write_report(folder, tmp_path / 'report.html', ('heuristic', 'srm'), 8)
  browser.open(tmp_path / 'report.html', 360)
  assert browser.evaluate('document.documentElement.scrollWidth') == 360


def test_the_browser_would_notice_complaints(shared_browser, tmp_path):
  path = tmp_path / 'bad.html'
  path.write_text('<script>console.error("one"); missing();</script>')
  shared_browser.problems.clear()
  shared_browser.open(path)
  found = ' '.join(shared_browser.problems)
  assert 'one' in found and 'missing is not defined' in found
