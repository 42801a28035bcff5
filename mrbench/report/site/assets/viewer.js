'use strict';
// The browser of items. Everything shown comes from the JSON in #data; texts are set as text, never as HTML.
(function () {
  const { clamp, short, element, fill, toNumber, format, numbers, gestures } = window.mrbench;
  const $ = (id) => document.getElementById(id);
  const data = JSON.parse($('data').textContent);
  const root = $('viewer');
  if (!data.items.length) return;

  const TRUTH = '~truth';
  const MEASUREMENT = '~measurement';
  const LAYERS = { image: 'image', error: 'error', mean: 'mean of draws', mean_error: 'error of the mean', sd: 'sd of draws' };
  const MOST_ZOOM = 24;
  const byId = new Map(data.items.map((item, i) => [item.id, i]));
  const numberOf = new Map(data.entries.map((e, k) => [e.name, k]));
  const firstEntries = data.entries.map((_, k) => k).filter((k) => !data.entries[k].control);
  const state = {
    item: 0,
    a: { entry: data.entries.length ? data.entries[0].name : TRUTH, layer: 'image' },
    b: { entry: TRUTH, layer: 'image' },
    grid: 'image',
    order: { how: 'worst', column: data.main, of: '' },
    split: 0.5,
    z: 1,
    x: 0,
    y: 0,
  };
  let order = [];
  let written = '';
  let timer = 0;

  // -- which pictures there are -----------------------------------------------------------------------------------------
  const pictures = () => data.items[state.item].pictures;

  function layersOf(entry) {
    if (entry === TRUTH || entry === MEASUREMENT) return ['image'];
    const k = numberOf.get(entry);
    return k === undefined || !pictures() ? [] : pictures().layers[k];
  }

  function source(entry, layer) {
    const p = pictures();
    if (!p) return '';
    if (entry === TRUTH) return p.folder + '/hr.png';
    if (entry === MEASUREMENT) return p.folder + '/lr.png';
    const layers = layersOf(entry);
    if (!layers.length) return '';
    return p.folder + '/' + numberOf.get(entry) + '-' + (layers.includes(layer) ? layer : layers[0]) + '.png';
  }

  const titleOf = (entry) => (entry === TRUTH ? 'ground truth' : entry === MEASUREMENT ? 'measurement' : entry);

  function words(entry, layer) {
    const layers = layersOf(entry);
    const shown = layers.includes(layer) ? layer : 'image';
    return titleOf(entry) + (shown === 'image' ? '' : ', ' + LAYERS[shown]);
  }

  function choices() {
    return [[TRUTH, 'ground truth'], [MEASUREMENT, 'measurement'], ...data.entries.map((e) => [e.name, short(e.name, 60)])];
  }

  // -- order of the list ------------------------------------------------------------------------------------------------
  function scoreOf(item, entries, column) {
    const values = entries.map((k) => toNumber(item.values[k][column])).filter((v) => Number.isFinite(v));
    return values.length ? values.reduce((s, v) => s + v, 0) / values.length : NaN;
  }

  function sorted() {
    const { how, column } = state.order;
    const all = data.items.map((_, i) => i);
    if (how === 'name' || column < 0) return { order: all, told: () => '' };
    const c = data.columns[column];
    const up = c.up === false ? -1 : 1;
    let value;
    let sign = up;
    if (how === 'a-b' || how === 'b-a') {
      const [first, second] = (how === 'a-b' ? [state.a, state.b] : [state.b, state.a]).map((s) => numberOf.get(s.entry));
      value = (i) => (first === undefined || second === undefined ? NaN : toNumber(data.items[i].values[first][column]) - toNumber(data.items[i].values[second][column]));
      sign = -up;
    } else {
      const of = numberOf.get(state.order.of);
      const entries = of !== undefined ? [of] : firstEntries.length ? firstEntries : data.entries.map((_, k) => k);
      value = (i) => (of !== undefined ? toNumber(data.items[i].values[of][column]) : scoreOf(data.items[i], entries, column));
      sign = how === 'best' ? -up : up;
    }
    const values = all.map(value);
    all.sort((i, j) => {
      const [u, v] = [values[i], values[j]];
      if (Number.isNaN(u) || Number.isNaN(v)) return Number.isNaN(u) - Number.isNaN(v) || i - j;
      return u === v ? i - j : sign * (u < v ? -1 : 1);
    });
    const plus = how === 'a-b' || how === 'b-a' ? (v) => (v > 0 ? '+' : '') : () => '';
    return { order: all, told: (i) => (Number.isNaN(values[i]) ? 'n/a' : plus(values[i]) + format(values[i], c.digits) + (c.unit ? ' ' + c.unit : '')) };
  }

  function showList() {
    const found = sorted();
    order = found.order;
    $('list').replaceChildren(...order.map((i) => {
      const item = data.items[i];
      const row = element('li');
      const link = element('a');
      link.href = '#' + new URLSearchParams({ item: item.id });
      link.dataset.index = String(i);
      if (item.pictures) {
        const image = element('img');
        image.loading = 'lazy';
        image.alt = '';
        image.width = 40;
        image.height = 40;
        image.src = item.pictures.folder + '/hr.png';
        link.append(image);
      }
      const text = element('span', 'list-text');
      text.append(element('span', 'list-id', item.id));
      const failed = item.status.filter((s) => s).length;
      const told = [found.told(i), failed ? failed + ' not ok' : ''].filter((t) => t).join(', ');
      if (told) text.append(element('span', 'list-score', told));
      link.append(text);
      row.append(link);
      return row;
    }));
    mark();
  }

  function mark() {
    for (const link of $('list').querySelectorAll('a')) {
      if (link.dataset.index === String(state.item)) link.setAttribute('aria-current', 'true');
      else link.removeAttribute('aria-current');
    }
    const place = order.indexOf(state.item);
    $('place').textContent = place + 1 + ' of ' + order.length;
    $('previous').disabled = place <= 0;
    $('next').disabled = place >= order.length - 1;
  }

  // -- one item -------------------------------------------------------------------------------------------------------
  function showItem() {
    const item = data.items[state.item];
    $('item-title').textContent = item.id;
    $('pictures').hidden = !item.pictures;
    $('why').textContent = item.pictures ? '' : 'No pictures of this item are in these pages.';
    if (item.pictures) {
      const [height, width] = item.pictures.size;
      root.style.setProperty('--wide', String(width));
      root.style.setProperty('--high', String(height));
      showSides();
      showGrid();
    }
    numbers($('numbers'), data, item);
    mark();
    transform();
    $('status').textContent = item.id + ', ' + $('place').textContent;
  }

  function showSides() {
    for (const side of ['a', 'b']) {
      const s = state[side];
      fill($(side + '-entry'), choices(), s.entry);
      const layers = layersOf(s.entry);
      fill($(side + '-layer'), layers.map((l) => [l, LAYERS[l]]), layers.includes(s.layer) ? s.layer : 'image');
      $(side + '-layer').disabled = layers.length < 2;
      const image = $(side + '-image');
      const from = source(s.entry, s.layer);
      image.alt = from ? side.toUpperCase() + ': ' + words(s.entry, s.layer) : '';
      if (from) image.src = from;
      else image.removeAttribute('src');
      image.classList.toggle('coarse', s.entry === MEASUREMENT);
      $(side + '-tag').textContent = side.toUpperCase() + ': ' + short(from ? words(s.entry, s.layer) : titleOf(s.entry) + ', no picture', 34);
    }
    const shown = ['a', 'b'].map((side) => (layersOf(state[side].entry).includes(state[side].layer) ? state[side].layer : 'image')).concat(state.grid);
    $('error-scale').hidden = !shown.some((l) => l === 'error' || l === 'mean_error');
    $('sd-scale').hidden = !shown.includes('sd');
    $('error-top').textContent = pictures().top + ' and above';
    $('sd-top').textContent = pictures().sd_top + ' and above';
    speak();
  }

  function showGrid() {
    const p = pictures();
    const layers = Object.keys(LAYERS).filter((l) => p.layers.some((of) => of.includes(l)));
    fill($('grid-layer'), layers.map((l) => [l, LAYERS[l]]), layers.includes(state.grid) ? state.grid : 'image');
    const tiles = choices().map(([entry]) => {
      const figure = element('figure', 'tile');
      figure.dataset.entry = entry;
      const frame = element('div', 'frame');
      const from = source(entry, state.grid);
      if (from) {
        const image = element('img');
        image.src = from;
        image.alt = words(entry, state.grid);
        image.classList.toggle('coarse', entry === MEASUREMENT);
        frame.append(image);
      } else {
        const k = numberOf.get(entry);
        frame.append(element('p', 'dim', data.items[state.item].status[k] || 'not stored'));
      }
      const caption = element('figcaption');
      const name = element('span', 'tile-name', short(titleOf(entry), 60));
      name.title = titleOf(entry);
      caption.append(name);
      const k = numberOf.get(entry);
      if (k !== undefined && data.main >= 0) {
        const c = data.columns[data.main];
        caption.append(element('span', 'dim', format(data.items[state.item].values[k][data.main], c.digits) + (c.unit ? ' ' + c.unit : '')));
      }
      const show = from && words(entry, state.grid) !== titleOf(entry) ? state.grid : 'image';
      const buttons = element('span', 'tile-buttons');
      for (const side of ['a', 'b']) {
        const button = element('button', 'pick pick-' + side, side.toUpperCase());
        button.type = 'button';
        button.setAttribute('aria-label', 'Show ' + titleOf(entry) + ' as ' + side.toUpperCase());
        button.addEventListener('click', () => {
          state[side] = { entry, layer: show };
          sideChanged();
        });
        buttons.append(button);
      }
      caption.append(buttons);
      figure.append(frame, caption);
      gestures(frame, null, moves);
      return figure;
    });
    $('grid').replaceChildren(...tiles);
    picked();
  }

  function picked() {
    for (const tile of $('grid').children) {
      for (const side of ['a', 'b']) {
        tile.querySelector('.pick-' + side).setAttribute('aria-pressed', String(state[side].entry === tile.dataset.entry));
      }
    }
  }

  // -- zoom and pan: shares of the frame, so that frames of all sizes stay together -----------------------------------
  function transform() {
    state.z = clamp(state.z, 1, MOST_ZOOM);
    state.x = clamp(state.x, 1 - state.z, 0);
    state.y = clamp(state.y, 1 - state.z, 0);
    root.style.setProperty('--z', String(state.z));
    root.style.setProperty('--x', state.x * 100 + '%');
    root.style.setProperty('--y', state.y * 100 + '%');
    root.style.setProperty('--split', state.split * 100 + '%');
    root.classList.toggle('zoomed', state.z > 1);
    $('zoom').textContent = (state.z < 10 ? Math.round(state.z * 10) / 10 : Math.round(state.z)) + 'x';
    $('zoom-out').disabled = state.z <= 1;
    $('zoom-in').disabled = state.z >= MOST_ZOOM;
    sharpness();
    remember();
  }

  // Pixels are shown as they are once each covers at least one of the screen; below that the browser averages.
  function sharpness() {
    if (!pictures()) return;
    const width = pictures().size[1];
    for (const frame of root.querySelectorAll('.stage, .frame')) {
      const enlarged = frame.clientWidth * window.devicePixelRatio * state.z >= width;
      frame.classList.toggle('pixels', enlarged && !$('smooth').checked);
    }
    root.classList.toggle('smooth', $('smooth').checked);
  }

  function zoomAt(factor, px, py) {
    const z = clamp(state.z * factor, 1, MOST_ZOOM);
    const u = (px - state.x) / state.z;
    const v = (py - state.y) / state.z;
    state.x = px - u * z;
    state.y = py - v * z;
    state.z = z;
    transform();
  }

  function whole() {
    Object.assign(state, { z: 1, x: 0, y: 0 });
    transform();
  }

  function detail() {
    const [left, top, width, height] = pictures().window;
    state.z = clamp(1 / Math.max(width, height), 1, MOST_ZOOM);
    state.x = 0.5 - (left + width / 2) * state.z;
    state.y = 0.5 - (top + height / 2) * state.z;
    transform();
  }

  function setSplit(share) {
    state.split = clamp(share, 0, 1);
    root.style.setProperty('--split', state.split * 100 + '%');
    speak();
  }

  function speak() {
    const percent = Math.round(state.split * 100);
    const divider = $('divider');
    divider.setAttribute('aria-valuenow', String(percent));
    const [a, b] = ['a', 'b'].map((side) => words(state[side].entry, state[side].layer));
    divider.setAttribute('aria-valuetext', percent + ' percent A (' + a + '), ' + (100 - percent) + ' percent B (' + b + ')');
  }

  const moves = {
    zoomed: () => state.z > 1,
    line: setSplit,
    lineRests: remember,
    zoomAt,
    pan,
  };

  function stageKeys(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const step = 0.1;
    const act = {
      '+': () => zoomAt(1.25, 0.5, 0.5),
      '=': () => zoomAt(1.25, 0.5, 0.5),
      '-': () => zoomAt(0.8, 0.5, 0.5),
      0: whole,
      ArrowLeft: () => pan(step, 0),
      ArrowRight: () => pan(-step, 0),
      ArrowUp: () => pan(0, step),
      ArrowDown: () => pan(0, -step),
    }[event.key];
    if (!act || (event.key.startsWith('Arrow') && state.z === 1)) return;
    event.preventDefault();
    act();
  }

  function pan(dx, dy) {
    state.x += dx;
    state.y += dy;
    transform();
  }

  function dividerKeys(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const step = event.shiftKey ? 0.1 : 0.02;
    const to = {
      ArrowLeft: state.split - step,
      ArrowDown: state.split - step,
      ArrowRight: state.split + step,
      ArrowUp: state.split + step,
      PageDown: state.split - 0.1,
      PageUp: state.split + 0.1,
      Home: 0,
      End: 1,
    }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    event.stopPropagation();
    setSplit(to);
    remember();
  }

  // -- the address: #item=ID&a=NAME&al=LAYER&b=NAME&bl=LAYER&grid=LAYER&z=..&x=..&y=..&split=.. ---------------------------
  function address() {
    const found = new URLSearchParams({ item: data.items[state.item].id });
    if (pictures()) {
      for (const side of ['a', 'b']) {
        found.set(side, state[side].entry);
        if (state[side].layer !== 'image') found.set(side + 'l', state[side].layer);
      }
      if (state.grid !== 'image') found.set('grid', state.grid);
      if (state.z > 1) for (const key of ['z', 'x', 'y']) found.set(key, state[key].toFixed(4));
      if (Math.abs(state.split - 0.5) > 0.001) found.set('split', state.split.toFixed(3));
    }
    return '#' + found;
  }

  // Browsers count calls, so the address follows when a movement pauses.
  function remember() {
    $('link').setAttribute('href', address());
    clearTimeout(timer);
    timer = setTimeout(() => {
      written = address();
      try {
        history.replaceState(null, '', written);
      } catch {
        // a browser that forbids it for files: the link still says it
      }
    }, 150);
  }

  function restore() {
    const asked = new URLSearchParams(location.hash.slice(1));
    const item = byId.get(asked.get('item'));
    if (item === undefined) {
      if (asked.has('item')) {
        $('status').textContent = 'There is no such item: ' + asked.get('item');
        $('status').classList.remove('unseen');
      }
      return false;
    }
    $('status').classList.add('unseen');
    state.item = item;
    const known = new Set(choices().map(([value]) => value));
    for (const side of ['a', 'b']) {
      if (!known.has(asked.get(side))) continue;
      const layer = asked.get(side + 'l');
      state[side] = { entry: asked.get(side), layer: layer in LAYERS ? layer : 'image' };
    }
    const number = (key, otherwise) => {
      const v = parseFloat(asked.get(key));
      return Number.isFinite(v) ? v : otherwise;
    };
    if (asked.has('grid') && asked.get('grid') in LAYERS) state.grid = asked.get('grid');
    if (asked.has('z')) Object.assign(state, { z: number('z', 1), x: number('x', 0), y: number('y', 0) });
    if (asked.has('split')) state.split = clamp(number('split', 0.5), 0, 1);
    return true;
  }

  // -- wiring ---------------------------------------------------------------------------------------------------------
  function sideChanged() {
    showSides();
    picked();
    if (state.order.how === 'a-b' || state.order.how === 'b-a') showList();
    transform();
  }

  function go(step) {
    const place = order.indexOf(state.item) + step;
    if (place < 0 || place >= order.length) return;
    state.item = order[place];
    showItem();
    const link = $('list').querySelector('[aria-current]');
    const list = $('list');
    if (link) list.scrollTop += link.getBoundingClientRect().top - list.getBoundingClientRect().top - list.clientHeight / 2;
  }

  for (const side of ['a', 'b']) {
    $(side + '-entry').addEventListener('change', (e) => {
      state[side].entry = e.target.value;
      sideChanged();
    });
    $(side + '-layer').addEventListener('change', (e) => {
      state[side].layer = e.target.value;
      sideChanged();
    });
  }
  $('grid-layer').addEventListener('change', (e) => {
    state.grid = e.target.value;
    showSides();
    showGrid();
    transform();
  });
  const orderColumns = data.columns.map((c, j) => [j, c.header + ' ' + c.arrow]).filter(([j]) => data.items.some((i) => i.values.some((v) => v[j] !== null)));
  fill($('order-column'), orderColumns, state.order.column);
  fill($('order-of'), [['', 'all methods (mean)'], ...data.entries.map((e) => [e.name, short(e.name, 40)])], '');
  $('order').addEventListener('change', () => {
    state.order = { how: $('order-how').value, column: Number($('order-column').value || -1), of: $('order-of').value };
    const pair = state.order.how === 'a-b' || state.order.how === 'b-a';
    $('order-of').disabled = pair || state.order.how === 'name';
    $('order-column').disabled = state.order.how === 'name';
    showList();
  });
  $('order').addEventListener('submit', (e) => e.preventDefault());
  $('previous').addEventListener('click', () => go(-1));
  $('next').addEventListener('click', () => go(1));
  $('zoom-in').addEventListener('click', () => zoomAt(1.5, 0.5, 0.5));
  $('zoom-out').addEventListener('click', () => zoomAt(1 / 1.5, 0.5, 0.5));
  $('zoom-reset').addEventListener('click', whole);
  $('zoom-detail').addEventListener('click', detail);
  $('smooth').addEventListener('change', sharpness);
  $('stage').addEventListener('keydown', stageKeys);
  $('divider').addEventListener('keydown', dividerKeys);
  gestures($('stage'), $('divider'), moves);
  window.addEventListener('resize', sharpness);
  window.addEventListener('hashchange', () => {
    if (location.hash === written) return;
    if (restore()) showItem();
  });

  root.hidden = false;
  order = sorted().order;
  state.item = order[0];
  restore();
  showList();
  showItem();
})();
