'use strict';
// Sortable tables: headers with data-sort get a button, which tells its state by aria-sort. Without this script the tables stay as they are.
(function () {
  const FIRST = { high: 'descending', number: 'descending', low: 'ascending', text: 'ascending' };

  function valueOf(row, index, kind) {
    const cell = row.cells[index];
    if (!cell) return null;
    const given = cell.dataset.value !== undefined ? cell.dataset.value : cell.textContent.trim();
    if (kind === 'text') return given;
    if (given === '') return null;
    const number = cell.dataset.value !== undefined ? Number(given) : parseFloat(given);
    return Number.isNaN(number) ? null : number;
  }

  function compare(a, b, kind, sign) {
    if (a === null || b === null) return (a === null) - (b === null); // n/a stays below, whatever the order
    if (kind === 'text') return sign * a.localeCompare(b, undefined, { numeric: true, sensitivity: 'base' });
    return a === b ? 0 : a < b ? -sign : sign;
  }

  function sort(table, header, order) {
    const index = header.cellIndex;
    const kind = header.dataset.sort;
    const sign = order === 'ascending' ? 1 : -1;
    for (const body of table.tBodies) {
      const rows = Array.from(body.rows, (row, place) => ({ row, place, value: valueOf(row, index, kind) }));
      rows.sort((x, y) => compare(x.value, y.value, kind, sign) || x.place - y.place);
      body.append(...rows.map((r) => r.row));
    }
    for (const other of header.parentElement.cells) {
      if (other.dataset.sort) other.setAttribute('aria-sort', other === header ? order : 'none');
    }
  }

  function enhance(table) {
    for (const header of table.tHead.rows[0].cells) {
      if (!header.dataset.sort) continue;
      const button = document.createElement('button');
      button.type = 'button';
      button.append(...header.childNodes);
      header.append(button);
      header.setAttribute('aria-sort', 'none');
      if (header.dataset.about) button.title = header.dataset.about;
      button.addEventListener('click', () => {
        const first = FIRST[header.dataset.sort];
        const second = first === 'ascending' ? 'descending' : 'ascending';
        sort(table, header, header.getAttribute('aria-sort') === first ? second : first);
      });
    }
  }

  function toggles(group) {
    const table = document.getElementById(group.dataset.for);
    const update = () => {
      for (const button of group.querySelectorAll('button')) {
        table.classList.toggle('no-' + button.dataset.kind, button.getAttribute('aria-pressed') !== 'true');
      }
    };
    group.addEventListener('click', (event) => {
      const button = event.target.closest('button');
      if (!button) return;
      button.setAttribute('aria-pressed', String(button.getAttribute('aria-pressed') !== 'true'));
      update();
    });
    group.hidden = false;
    update();
  }

  // A link into a closed part opens it.
  function reveal() {
    let id = '';
    try { id = decodeURIComponent(location.hash.slice(1)); } catch { return; }
    const target = id && document.getElementById(id);
    if (!target) return;
    for (let e = target; e; e = e.parentElement) if (e.tagName === 'DETAILS') e.open = true;
    target.scrollIntoView();
  }

  document.querySelectorAll('table.sortable').forEach(enhance);
  document.querySelectorAll('.toggles').forEach(toggles);
  window.addEventListener('hashchange', reveal);
  reveal();
})();
