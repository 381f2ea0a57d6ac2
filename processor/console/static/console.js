// The little that a page does by itself: live events, how far a job is, places in the archive, the slash key. All that comes from the server
// is put in as text; the pages work without this file.
'use strict';

(() => {
  const all = (selector, root = document) => Array.from(root.querySelectorAll(selector));
  const one = (selector, root = document) => root.querySelector(selector);
  const mostRows = 500;

  // "/" leads to the search, as on many sites.
  document.addEventListener('keydown', (e) => {
    const field = one('[data-search]');
    if (e.key === '/' && field && !e.ctrlKey && !e.metaKey && !e.altKey && !/^(INPUT|SELECT|TEXTAREA)$/.test(e.target.tagName)) {
      e.preventDefault();
      field.focus();
      field.select();
    }
  });

  // Live events.
  const button = one('button[data-live]');
  if (button && window.EventSource) {
    let stream = null;
    let seen = 0;
    let last = button.dataset.last; // what the list has is not told again, and what comes before Live is pressed is not left out
    const told = one('#told');
    button.hidden = false;
    const fill = (row) => {
      const tr = one('#row').content.firstElementChild.cloneNode(true);
      const cells = tr.children;
      const time = one('time', cells[0]);
      time.dateTime = row.iso;
      time.textContent = row.received;
      one('bdi', cells[1]).textContent = row.source;
      const a = one('a', cells[2]);
      a.href = row.url;
      one('bdi', a).textContent = row.id;
      one('bdi', cells[3]).textContent = row.type;
      const tag = one('span', cells[4]);
      tag.classList.add(row.status);
      tag.textContent = row.status;
      cells[5].textContent = row.deliveries;
      cells[6].textContent = row.size;
      return tr;
    };
    const stop = () => {
      stream.close();
      stream = null;
      button.setAttribute('aria-pressed', 'false');
      told.textContent = 'Live has ended.';
    };
    const start = () => {
      const url = new URL(button.dataset.live, document.baseURI);
      if (last > 0) url.searchParams.set('after', last);
      stream = new EventSource(url);
      button.setAttribute('aria-pressed', 'true');
      stream.onopen = () => { if (!seen) told.textContent = 'Live: new events appear at the top.'; };
      stream.onmessage = (message) => {
        last = message.lastEventId;
        const { rows } = JSON.parse(message.data);
        const body = one('#events tbody');
        one('#events').hidden = false;
        if (one('#nothing')) one('#nothing').hidden = true;
        for (const row of rows) body.prepend(fill(row));
        while (body.rows.length > mostRows) body.lastElementChild.remove();
        seen += rows.length;
        told.textContent = `Live: ${seen} new events.`;
      };
      stream.onerror = () => { if (stream && stream.readyState === EventSource.CLOSED) stop(); };
    };
    button.addEventListener('click', () => (stream ? stop() : start()));
    window.addEventListener('pagehide', () => stream && stop());
  }

  // How far a job or an audit is. When it is over, the page is asked for anew.
  const polled = one('[data-poll]');
  if (polled) {
    const ask = () => fetch(polled.dataset.poll)
      .then((answer) => (answer.ok ? answer.json() : Promise.reject(new Error(answer.status))))
      .then((state) => {
        if (state.over) { window.location.reload(); return; }
        for (const [name, text] of Object.entries(state.texts || {})) {
          const place = one(`[data-text="${name}"]`, polled);
          if (place) place.textContent = text;
        }
        const bar = one('progress', polled);
        if (bar) bar.value = state.made;
        setTimeout(ask, 1000);
      })
      .catch(() => setTimeout(ask, 5000));
    setTimeout(ask, 1000);
  }

  // Where the deliveries lie in the archive: asked for after the page is there, since a store may be slow, and again until all are in it.
  const section = one('[data-places]');
  if (section) {
    const cells = all('[data-delivery]', section);
    for (const cell of cells) cell.textContent = '…';
    let pause = 2000;
    const again = () => {
      setTimeout(() => (document.hidden ? document.addEventListener('visibilitychange', ask, { once: true }) : ask()), pause);
      pause = Math.min(pause * 1.5, 60000);
    };
    const ask = () => fetch(section.dataset.places)
      .then((answer) => (answer.ok ? answer.json() : Promise.reject(new Error(answer.status))))
      .then((places) => {
        places.slice(0, cells.length).forEach((place, i) => {
          cells[i].textContent = place.segment ? `${place.segment}, row ${place.row}` : place.note;
        });
        if (places[0] && places[0].segment) archived(places[0]);
        if (places.some((place) => !place.segment)) again();
      })
      .catch(() => {
        for (const cell of cells) cell.textContent = 'the archive was asked in vain';
        again();
      });
    const archived = (place) => {
      const step = one('[data-archived]');
      one('.dim', step).textContent = `${place.segment}, row ${place.row}`;
      step.hidden = false;
      const kafka = one('[data-kafka]');
      one('.at', kafka).textContent = place.in_kafka.replace('T', ' ').replace(/(\.\d{1,3})?\d*Z$/, (_, ms) => (ms || '.').padEnd(4, '0'));
      kafka.hidden = false;
    };
    ask();
  }
})();
