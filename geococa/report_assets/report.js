"use strict";
(function () {
  const data = JSON.parse(document.getElementById("geococa-data").textContent);
  const root = document.documentElement;

  // ---- language -------------------------------------------------------------------------------
  function text(key, args) {
    const pair = data.text[key];
    const phrase = pair ? pair[root.lang === "es" ? 1 : 0] : key;
    return phrase.replace(/\{(\w+)\}/g, (whole, name) => (args && name in args ? args[name] : whole));
  }
  // Arguments that are themselves phrases (a class name) are kept apart from literal ones (a zone's name).
  function phraseOf(element, key) {
    const args = element.dataset.a ? JSON.parse(element.dataset.a) : {};
    const keys = element.dataset.k ? JSON.parse(element.dataset.k) : {};
    for (const name of Object.keys(keys)) args[name] = text(keys[name]);
    return text(key, args);
  }
  function translate() {
    document.querySelectorAll("[data-t]").forEach((e) => { e.textContent = phraseOf(e, e.dataset.t); });
    document.querySelectorAll("[data-tl]").forEach((e) => { e.setAttribute("aria-label", phraseOf(e, e.dataset.tl)); });
    document.querySelectorAll("[data-language]").forEach((b) => b.setAttribute("aria-pressed", String(b.dataset.language === root.lang)));
    document.querySelectorAll("[data-filter]").forEach(showCount);
    if (play) play.textContent = text(timer ? "map.pause" : "map.play");
  }

  // ---- tables ---------------------------------------------------------------------------------
  function cellValue(row, index) {
    const cell = row.cells[index];
    return cell.dataset.v !== undefined ? cell.dataset.v : cell.textContent.trim();
  }
  function sortBy(table, index, descending) {
    const body = table.tBodies[0];
    const rows = Array.from(body.rows);
    const numeric = !table.tHead.rows[0].cells[index].classList.contains("text");
    const collator = new Intl.Collator(root.lang, { numeric: true });
    rows.sort((a, b) => {
      const x = cellValue(a, index), y = cellValue(b, index);
      if (x === "" || y === "") return (x === "") - (y === "");   // unknown values last, whichever way
      const order = numeric ? Number(x) - Number(y) : collator.compare(x, y);
      return descending ? -order : order;
    });
    body.append(...rows);
    for (const th of table.tHead.rows[0].cells) th.removeAttribute("aria-sort");
    table.tHead.rows[0].cells[index].setAttribute("aria-sort", descending ? "descending" : "ascending");
  }
  document.querySelectorAll("table.sortable").forEach((table) => {
    Array.from(table.tHead.rows[0].cells).forEach((th, index) => {
      const button = th.querySelector("button");
      if (!button) return;
      button.addEventListener("click", () => {
        const was = th.getAttribute("aria-sort");
        const first = !th.classList.contains("text");          // numbers: largest first
        sortBy(table, index, was ? was === "ascending" : first);
      });
    });
  });

  function showCount(input) {
    const table = document.getElementById(input.dataset.filter);
    const rows = Array.from(table.tBodies[0].rows);
    const shown = rows.filter((row) => !row.hidden).length;
    document.querySelector('[data-count="' + input.dataset.filter + '"]').textContent =
      text("filter.count", { shown: String(shown), all: String(rows.length) });
  }
  const plain = (s) => s.normalize("NFD").replace(/[\u0300-\u036f]/g, "").toLowerCase();
  document.querySelectorAll("[data-filter]").forEach((input) => {
    input.addEventListener("input", () => {
      const wanted = plain(input.value.trim());
      const table = document.getElementById(input.dataset.filter);
      for (const row of table.tBodies[0].rows) row.hidden = !plain(row.cells[0].textContent).includes(wanted);
      showCount(input);
    });
  });

  // A text cell that a spreadsheet would run as a formula gets an apostrophe; numbers stay as they are.
  function csvText(value) {
    const safe = /^[=+\-@\t\r]/.test(value) ? "'" + value : value;
    return /[",\n\r]/.test(safe) ? '"' + safe.replace(/"/g, '""') + '"' : safe;
  }
  function toCsv(table) {
    const heads = Array.from(table.tHead.rows[0].cells);
    const columns = heads.map((th, i) => i).filter((i) => heads[i].dataset.csv !== undefined);
    const lines = [columns.map((i) => csvText(heads[i].dataset.csv)).join(",")];
    for (const row of table.tBodies[0].rows) {
      if (row.hidden) continue;
      lines.push(columns.map((i) => {
        const value = cellValue(row, i);
        return heads[i].classList.contains("text") ? csvText(value) : value;
      }).join(","));
    }
    return lines.join("\r\n") + "\r\n";
  }
  document.querySelectorAll("[data-download]").forEach((button) => {
    button.addEventListener("click", () => {
      const csv = toCsv(document.getElementById(button.dataset.download));
      const link = document.createElement("a");
      link.href = URL.createObjectURL(new Blob(["\ufeff", csv], { type: "text/csv;charset=utf-8" }));
      link.download = button.dataset.file;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    });
  });

  // ---- map ------------------------------------------------------------------------------------
  let timer = null;
  const play = document.getElementById("play");
  const slider = document.getElementById("year");

  function startMap() {
    const box = document.getElementById("map");
    if (!box || !data.map || typeof L === "undefined") return;
    const still = window.matchMedia("(prefers-reduced-motion: reduce)").matches;
    const map = L.map(box, { attributionControl: false, zoomControl: true, zoomSnap: 0.25, zoomDelta: 0.5, maxZoom: 19,
      scrollWheelZoom: false, fadeAnimation: false, zoomAnimation: !still, markerZoomAnimation: false, inertia: !still });
    map.on("focus click", () => map.scrollWheelZoom.enable());
    map.on("blur", () => map.scrollWheelZoom.disable());
    L.control.scale({ imperial: false, maxWidth: 140 }).addTo(map);
    ["cover", "unobserved", "coca"].forEach((name, i) => { map.createPane(name).style.zIndex = 250 + i; });
    ["cover", "unobserved", "coca"].forEach((name) => { map.getPane(name).style.pointerEvents = "none"; });

    const EMPTY = "data:image/gif;base64,R0lGODlhAQABAAAAACH5BAEKAAEALAAAAAABAAEAAAICTAEAOw==";
    const url = (code) => (!code ? EMPTY : code.startsWith("data:") ? code : "data:image/png;base64," + code);
    const state = { position: data.map.years.length - 1, overlay: "coca", background: data.map.picture ? "picture" : "cover", unobserved: true };
    const tiles = data.map.tiles.map((tile) => ({
      tile,
      cover: L.imageOverlay(EMPTY, tile.bounds, { pane: "cover" }).addTo(map),
      unobserved: L.imageOverlay(EMPTY, tile.bounds, { pane: "unobserved" }).addTo(map),
      coca: L.imageOverlay(EMPTY, tile.bounds, { pane: "coca" }).addTo(map),
      shown: {},
    }));
    // what the panel beside it leaves decides how high the map is
    legend();
    map.invalidateSize({ pan: false });
    const extent = L.latLngBounds(data.map.tiles.flatMap((tile) => tile.bounds));
    map.fitBounds(extent, { padding: [8, 8], animate: false });
    map.setMaxBounds(extent.pad(0.6));
    map.setMinZoom(Math.max(0, map.getZoom() - 1.5));

    // The finest picture whose pixels are still wider than a screen pixel: finer ones would lose small plots.
    function level(tile) {
      const fits = tile.levels.findIndex((one) => {
        const west = map.project([one.bounds[1][0], one.bounds[0][1]]), east = map.project(one.bounds[1]);
        return (east.x - west.x) / one.columns >= 1.5;
      });
      return fits === -1 ? tile.levels.length - 1 : fits;
    }
    function put(entry, name, key, code, bounds) {
      if (entry.shown[name] === key) return;   // nothing new to decode
      entry.shown[name] = key;
      entry[name].setBounds(L.latLngBounds(bounds));
      entry[name].setUrl(url(code));
    }
    function draw() {
      const year = String(data.map.years[state.position]);
      map.getPane("cover").style.opacity = state.background === "picture" ? 1 : 0.7;
      for (const entry of tiles) {
        const one = entry.tile.years[year] || { cover: "", unobserved: "", coca: [], change: [] };
        const pick = level(entry.tile);
        const cover = state.background === "cover" ? one.cover : state.background === "picture" ? entry.tile.picture : "";
        put(entry, "cover", state.background + (state.background === "cover" ? year : ""), cover,
          state.background === "picture" && cover ? entry.tile.picture_bounds : entry.tile.bounds);
        put(entry, "unobserved", state.unobserved ? year : "", state.unobserved ? one.unobserved : "", entry.tile.bounds);
        put(entry, "coca", state.overlay + year + pick, one[state.overlay][pick] || "", entry.tile.levels[pick].bounds);
      }
    }
    function showYear(position) {
      state.position = position;
      const year = data.map.years[position];
      const label = year === null ? "–" : String(year);
      document.getElementById("year-shown").textContent = label;
      if (slider) { slider.value = String(position); slider.setAttribute("aria-valuetext", label); }
      draw();
    }
    function legend() {
      document.querySelectorAll("[data-legend]").forEach((item) => {
        const kind = item.dataset.legend;
        item.hidden = kind === "cover" ? state.background !== "cover" : kind === "unobserved" ? !state.unobserved : kind !== state.overlay;
      });
    }
    map.on("zoomend", draw);
    if (slider) slider.addEventListener("input", () => { stop(); showYear(Number(slider.value)); });
    function stop() {
      if (timer) clearInterval(timer);
      timer = null;
      if (play) { play.textContent = text("map.play"); play.setAttribute("aria-pressed", "false"); }
    }
    if (play) play.addEventListener("click", () => {
      if (timer) return stop();
      if (state.position === data.map.years.length - 1) showYear(0);
      timer = setInterval(() => {
        if (state.position >= data.map.years.length - 1) return stop();
        showYear(state.position + 1);
      }, 1100);
      play.textContent = text("map.pause");
      play.setAttribute("aria-pressed", "true");
    });
    for (const name of ["overlay", "background"]) {
      document.querySelectorAll('input[name="' + name + '"]').forEach((input) => input.addEventListener("change", () => {
        state[name] = input.value;
        legend();
        map.invalidateSize({ pan: false });
        draw();
      }));
    }
    document.getElementById("unobserved").addEventListener("change", (event) => {
      state.unobserved = event.target.checked;
      legend();
      draw();
    });
    document.getElementById("whole").addEventListener("click", () => map.fitBounds(extent, { padding: [8, 8], animate: !still }));

    if (data.outlines) {
      const ink = { color: "#101010", weight: 2, opacity: 1, fillOpacity: 0.02, fillColor: "#ffffff" };
      const halo = L.geoJSON(data.outlines, { interactive: false, style: { color: "#ffffff", weight: 4.5, opacity: 0.85, fill: false } }).addTo(map);
      const lines = L.geoJSON(data.outlines, { style: ink, onEachFeature: (feature, layer) => {
        // an element, not a string: Leaflet takes strings as HTML
        layer.bindPopup(() => popup(feature.properties));
      } }).addTo(map);
      const box = document.getElementById("outlines");
      box.addEventListener("change", () => {
        for (const layer of [halo, lines]) { if (box.checked) layer.addTo(map); else layer.remove(); }
      });
    }
    function popup(properties) {
      const element = document.createElement("div");
      const name = document.createElement("strong");
      name.textContent = properties.zone;
      element.append(name);
      const values = data.values[properties.anchor] || [];
      data.years.forEach((year, i) => {
        const line = document.createElement("p");
        const args = { year: year === null ? "–" : String(year), value: values[i] };
        line.textContent = text(values[i] === "–" ? "map.popup.unseen" : "map.popup", args);
        element.append(line);
      });
      const link = document.createElement("a");
      link.href = "#" + properties.anchor;
      link.textContent = text("map.popup.link");
      element.append(link);
      return element;
    }
    const view = {};
    window.addEventListener("beforeprint", () => {
      view.center = map.getCenter(); view.zoom = map.getZoom();
      box.classList.add("printing");
      map.invalidateSize({ animate: false });
      map.setMinZoom(0);
      map.fitBounds(extent, { padding: [4, 4], animate: false });
    });
    window.addEventListener("afterprint", () => {
      box.classList.remove("printing");
      map.invalidateSize({ animate: false });
      map.setView(view.center, view.zoom, { animate: false });
    });
    showYear(state.position);
    box.dataset.ready = "true";
  }

  // paper can't be unfolded: error matrices print whole; long tables print where the reader has opened them
  window.addEventListener("beforeprint", () => document.querySelectorAll("details.matrix").forEach((d) => { d.open = true; }));
  document.querySelectorAll("[data-language]").forEach((button) => button.addEventListener("click", () => {
    root.lang = button.dataset.language;
    translate();
    window.dispatchEvent(new Event("resize"));   // longer words make the panel, and so the map, higher
  }));
  startMap();
  translate();
})();
