'use strict';

// A press on a heading sorts its table: numbers from the highest, text from A; a second press turns
// the order round. Rows that are equal keep their order.
function sortBy(heading) {
  const isNumber = heading.classList.contains('number');
  const natural = isNumber ? 'descending' : 'ascending';
  const reverse = isNumber ? 'ascending' : 'descending';
  const order = heading.getAttribute('aria-sort') === natural ? reverse : natural;
  const value = (row) => {
    const cell = row.cells[heading.cellIndex];
    return isNumber ? Number(cell.dataset.value) : cell.textContent;
  };
  const compare = isNumber ? (a, b) => a - b : (a, b) => a.localeCompare(b);
  const sign = order === 'ascending' ? 1 : -1;
  const body = heading.closest('table').tBodies[0];
  const rows = [...body.rows].sort((a, b) => sign * compare(value(a), value(b)));
  body.append(...rows);
  for (const other of heading.parentElement.querySelectorAll('[aria-sort]')) {
    other.setAttribute('aria-sort', other === heading ? order : 'none');
  }
}

for (const button of document.querySelectorAll('th button')) {
  button.addEventListener('click', () => sortBy(button.parentElement));
}
