'use strict';
// What the browser of items is made of: elements, numbers, gestures.
window.mrbench = (function () {
  const clamp = (v, low, high) => Math.min(high, Math.max(low, v));
  const short = (text, n) => (text.length <= n ? text : text.slice(0, n - 14) + '…' + text.slice(-13));

  function element(tag, className, text) {
    const e = document.createElement(tag);
    if (className) e.className = className;
    if (text !== undefined) e.textContent = text;
    return e;
  }

  function fill(select, options, chosen) {
    select.replaceChildren(...options.map(([value, text]) => {
      const o = element('option', '', text);
      o.value = value;
      return o;
    }));
    select.value = String(chosen);
    if (select.selectedIndex < 0 && options.length) select.selectedIndex = 0;
  }

  function toNumber(value) {
    if (value === null) return NaN;
    return value === 'inf' ? Infinity : value === '-inf' ? -Infinity : value;
  }

  function format(value, digits) {
    const v = toNumber(value);
    if (Number.isNaN(v)) return 'n/a';
    if (!Number.isFinite(v)) return v > 0 ? 'inf' : '-inf';
    if (v !== 0 && Math.abs(v) < 0.5 * 10 ** -digits) return v.toExponential(1);
    return v.toFixed(digits);
  }

  // The table of an item: a row per method, a column per metric.
  function numbers(table, data, item) {
    const head = element('tr');
    const first = element('th', 'text name', 'method');
    first.scope = 'col';
    head.append(first, ...data.columns.map((c) => {
      const th = element('th', '', c.header + ' ' + c.arrow);
      th.scope = 'col';
      if (c.unit) th.append(element('small', '', c.unit));
      return th;
    }));
    table.tHead.replaceChildren(head);
    table.tBodies[0].replaceChildren(...data.entries.map((entry, k) => {
      const row = element('tr');
      const name = element('th', 'text name');
      name.scope = 'row';
      name.append(element('span', 'n', entry.name));
      if (entry.control) name.firstChild.append(element('span', 'dim', ' (control)'));
      row.append(name);
      if (item.status[k]) {
        const cell = element('td', 'text na', item.status[k]);
        cell.colSpan = data.columns.length;
        row.append(cell);
      } else {
        row.append(...data.columns.map((c, j) => element('td', item.values[k][j] === null ? 'na' : '', format(item.values[k][j], c.digits))));
      }
      return row;
    }));
  }

  // Pointers: one drags (the line, or the image once it is enlarged), two zoom. The wheel zooms on a stage that has the focus;
  // elsewhere with Ctrl. `divider`: the line, of the frame that has one. `moves`: what to call, with shares of the frame.
  function gestures(frame, divider, moves) {
    const pointers = new Map();
    let what = '';
    let pinch = null;
    let start = 0;
    const at = (event) => {
      const box = frame.getBoundingClientRect();
      return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
    };
    const spread = () => {
      const [p, q] = [...pointers.values()];
      return { distance: Math.hypot(p[0] - q[0], p[1] - q[1]), middle: [(p[0] + q[0]) / 2, (p[1] + q[1]) / 2] };
    };

    frame.addEventListener('pointerdown', (event) => {
      if (event.pointerType === 'mouse' && event.button !== 0) return;
      frame.setPointerCapture(event.pointerId);
      pointers.set(event.pointerId, at(event));
      if (pointers.size === 2) {
        pinch = spread();
        what = 'pinch';
      } else if (pointers.size === 1) {
        const onLine = divider && (event.target === divider || !moves.zoomed());
        what = onLine ? 'line' : moves.zoomed() ? 'pan' : '';
        // a finger may have come to scroll the page: the line waits until it moves sideways
        if (what === 'line' && event.pointerType === 'touch' && event.target !== divider) what = 'wait';
        start = event.clientX;
        if (what === 'line') moves.line(at(event)[0]);
        if (divider) (what === 'line' ? divider : frame).focus({ preventScroll: true });
      }
      if (event.pointerType === 'mouse') event.preventDefault();
    });

    frame.addEventListener('pointermove', (event) => {
      const before = pointers.get(event.pointerId);
      if (!before) return;
      const now = at(event);
      pointers.set(event.pointerId, now);
      if (what === 'pinch' && pointers.size === 2) {
        const next = spread();
        if (pinch.distance > 0) moves.zoomAt(next.distance / pinch.distance, ...next.middle);
        moves.pan(next.middle[0] - pinch.middle[0], next.middle[1] - pinch.middle[1]);
        pinch = next;
      } else if (what === 'wait') {
        if (Math.abs(event.clientX - start) > 6) what = 'line';
      } else if (what === 'line') {
        moves.line(now[0]);
      } else if (what === 'pan') {
        moves.pan(now[0] - before[0], now[1] - before[1]);
      }
    });

    const end = (event) => {
      if (!pointers.delete(event.pointerId)) return;
      if (!pointers.size && what === 'line') moves.lineRests();
      if (!pointers.size) what = '';
      else if (what === 'pinch') what = 'pan';
    };
    frame.addEventListener('pointerup', end);
    frame.addEventListener('pointercancel', end);

    frame.addEventListener('wheel', (event) => {
      const asked = event.ctrlKey || event.metaKey || (divider && frame.contains(document.activeElement));
      if (!asked || (!moves.zoomed() && event.deltaY > 0 && !event.ctrlKey)) return;
      event.preventDefault();
      moves.zoomAt(Math.exp(-clamp(event.deltaY, -120, 120) * 0.0025), ...at(event));
    }, { passive: false });
  }

  return { clamp, short, element, fill, toNumber, format, numbers, gestures };
})();
