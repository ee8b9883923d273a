// Keypoints in space on a canvas: the object, points, names, edges, and the views on their frusta. Mouse, touch, keyboard.
(() => {
  "use strict";
  const START = { yaw: 1.05, pitch: 0.36, zoom: 1.35 };
  const NEARER = 0.55, SMALLER = 0.42;
  const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
  const sub = (a, b) => [a[0] - b[0], a[1] - b[1], a[2] - b[2]];
  const mix = (a, b, t) => a.map((v, i) => v + (b[i] - v) * t);
  const mean = (list) => list.reduce((s, p) => s.map((v, i) => v + p[i] / list.length), [0, 0, 0]);

  const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer;

  // The object's surface: places, faces, and of each face its corners' mean colour and its normal.
  const surface = (solid) => {
    const raw = new Uint16Array(bytes(solid.places)), quads = new Uint16Array(bytes(solid.quads));
    const shades = new Uint8Array(bytes(solid.colors)), places = new Float32Array(raw.length);
    for (let i = 0; i < raw.length; i++) places[i] = solid.low[i % 3] + (raw[i] / 65535) * solid.size;
    const count = quads.length / 4, normals = new Float32Array(3 * count), colors = new Uint8Array(3 * count);
    const at = (v) => [places[3 * v], places[3 * v + 1], places[3 * v + 2]];
    for (let f = 0; f < count; f++) {
      const corners = [0, 1, 2, 3].map((i) => quads[4 * f + i]);
      const [a, b, c, d] = corners.map(at), p = sub(c, a), q = sub(d, b);
      const n = [p[1] * q[2] - p[2] * q[1], p[2] * q[0] - p[0] * q[2], p[0] * q[1] - p[1] * q[0]];
      const length = Math.hypot(...n) || 1;
      for (let i = 0; i < 3; i++) {
        normals[3 * f + i] = n[i] / length;
        colors[3 * f + i] = corners.reduce((sum, v) => sum + shades[3 * v + i] / 4, 0);
      }
    }
    return { places, quads, normals, colors, count };
  };

  class Viewer {
    constructor(canvas) {
      this.canvas = canvas;
      this.scene = JSON.parse(canvas.dataset.koScene);
      this.stage = canvas.closest(".ko-stage");
      this.panel = canvas.closest(".ko-panel");
      this.state = { ...START };
      this.show = { solid: true, points: true, frusta: true, landmarks: true };
      this.solid = this.scene.solid ? surface(this.scene.solid) : null;
      this.chosen = null;
      this.hovered = null;
      this.pointers = new Map();
      // Views are drawn nearer than their cameras stand, and smaller, to leave room for the object.
      for (const f of this.scene.frusta) {
        const rim = f.rim.map((p, i) => sub(p, f.tip[i]));
        f.tip = f.tip.map((p) => mix([0, 0, 0], p, NEARER));
        f.rim = rim.map((p, i) => f.tip[i].map((v, j) => v + SMALLER * p[j]));
      }
      const reach = this.scene.frusta.map((f) => Math.hypot(...f.tip[0]));
      this.reach = Math.max(0.8, ...reach);
      this.listen();
      this.controls();
      new ResizeObserver(() => this.draw()).observe(canvas);
      for (const image of this.panel.querySelectorAll("img[data-tile]"))
        if (!image.complete) image.addEventListener("load", () => this.draw());
      this.draw();
    }

    controls() {
      const look = this.stage.querySelector("[data-ko-look]");
      for (const [i, f] of this.scene.frusta.entries()) look.add(new Option(f.name, String(i)));
      look.addEventListener("change", () => {
        if (look.value === "") this.state = { ...START };
        else {
          const [x, y, z] = mean(this.scene.frusta[Number(look.value)].tip);
          this.state = { yaw: Math.atan2(y, x), pitch: Math.atan2(z, Math.hypot(x, y)), zoom: 2 };
        }
        this.draw();
      });
      for (const box of this.stage.querySelectorAll("[data-ko-show]")) {
        this.show[box.dataset.koShow] = box.checked;
        box.addEventListener("change", () => { this.show[box.dataset.koShow] = box.checked; this.draw(); });
      }
      for (const [part, there] of [["landmarks", this.scene.landmarks.length], ["solid", this.solid]])
        if (!there) this.stage.querySelector(`[data-ko-has=${part}]`).hidden = true;
    }

    listen() {
      const c = this.canvas;
      c.addEventListener("pointerdown", (e) => {
        c.setPointerCapture(e.pointerId);
        this.pointers.set(e.pointerId, [e.clientX, e.clientY]);
        this.moved = 0;
      });
      c.addEventListener("pointermove", (e) => this.move(e));
      const up = (e) => {
        if (this.pointers.delete(e.pointerId) && this.moved < 5) {
          const hit = this.at(e);
          if (hit) document.dispatchEvent(new CustomEvent("ko:choose", { detail: hit.k }));
        }
      };
      c.addEventListener("pointerup", up);
      c.addEventListener("pointercancel", (e) => this.pointers.delete(e.pointerId));
      c.addEventListener("pointerleave", () => { this.hovered = null; this.draw(); });
      // The page scrolls on over a scene that nobody has clicked.
      const wheel = (e) => {
        if (document.activeElement !== c && !e.ctrlKey) return;
        e.preventDefault();
        this.zoom(Math.exp(-e.deltaY / 600));
      };
      c.addEventListener("wheel", wheel, { passive: false });
      c.addEventListener("keydown", (e) => this.key(e));
      document.addEventListener("ko:choice", (e) => { this.chosen = e.detail; this.draw(); });
      document.addEventListener("ko:theme", () => this.draw());
    }

    move(e) {
      const before = this.pointers.get(e.pointerId);
      if (!before) { this.hovered = this.at(e); this.draw(); return; }
      const now = [e.clientX, e.clientY];
      if (this.pointers.size === 1) this.turn((now[0] - before[0]) / 120, (now[1] - before[1]) / 120);
      else {
        const other = [...this.pointers].find(([id]) => id !== e.pointerId)[1];
        const gap = (p) => Math.max(1, Math.hypot(p[0] - other[0], p[1] - other[1]));
        this.zoom(gap(now) / gap(before));
      }
      this.moved += Math.hypot(now[0] - before[0], now[1] - before[1]);
      this.pointers.set(e.pointerId, now);
    }

    key(e) {
      const step = 0.12;
      const actions = {
        ArrowLeft: () => this.turn(-step, 0), ArrowRight: () => this.turn(step, 0),
        ArrowUp: () => this.turn(0, -step), ArrowDown: () => this.turn(0, step),
        "+": () => this.zoom(1.12), "=": () => this.zoom(1.12), "-": () => this.zoom(1 / 1.12),
        0: () => { this.state = { ...START }; this.draw(); },
      };
      if (actions[e.key]) { e.preventDefault(); actions[e.key](); }
    }

    turn(right, down) {
      this.state.yaw -= right;
      this.state.pitch = Math.max(-1.5, Math.min(1.5, this.state.pitch + down));
      this.draw();
    }

    zoom(factor) {
      this.state.zoom = Math.max(0.4, Math.min(8, this.state.zoom * factor));
      this.draw();
    }

    at(e) {
      const box = this.canvas.getBoundingClientRect();
      const away = ([x, y]) => Math.hypot(x - (e.clientX - box.left), y - (e.clientY - box.top));
      const near = (p) => Math.min(away([p.x, p.y]), p.label ? away(p.label) : Infinity);
      const hits = (this.places || []).filter((p) => near(p) < p.r + 3).sort((a, b) => near(a) - near(b));
      return hits[0] || null;
    }

    project(p) {
      const away = dot(p, this.back);
      const scale = this.focal / Math.max(0.05, this.distance - away);
      return { x: this.width / 2 + scale * dot(p, this.right), y: this.height / 2 - scale * dot(p, this.up), scale, away };
    }

    draw() {
      const ratio = Math.min(devicePixelRatio || 1, 2);
      this.width = this.canvas.clientWidth;
      this.height = this.canvas.clientHeight;
      if (!this.width || !this.height) return;
      const w = Math.round(this.width * ratio), h = Math.round(this.height * ratio);
      if (this.canvas.width !== w || this.canvas.height !== h) { this.canvas.width = w; this.canvas.height = h; }
      const g = (this.g = this.canvas.getContext("2d"));
      g.setTransform(ratio, 0, 0, ratio, 0, 0);
      g.clearRect(0, 0, this.width, this.height);
      const css = getComputedStyle(this.canvas);
      this.colors = { text: css.getPropertyValue("--text"), soft: css.getPropertyValue("--soft"), line: css.getPropertyValue("--line"), card: css.getPropertyValue("--card"), ground: css.getPropertyValue("--stage") };
      const { yaw, pitch, zoom } = this.state;
      this.back = [Math.cos(pitch) * Math.cos(yaw), Math.cos(pitch) * Math.sin(yaw), Math.sin(pitch)];
      this.right = [-Math.sin(yaw), Math.cos(yaw), 0];
      this.up = [-Math.sin(pitch) * Math.cos(yaw), -Math.sin(pitch) * Math.sin(yaw), Math.cos(pitch)];
      this.distance = 3.2 * this.reach;
      this.focal = (0.44 * Math.min(this.width, this.height) * this.distance * zoom) / this.reach / 0.98;
      this.ground();
      // What stands behind the object, the object, and what must be seen in front of it.
      const order = (things) => { things.sort((a, b) => a[0] - b[0]); for (const thing of things) thing[1](); };
      const frusta = this.show.frusta ? this.scene.frusta.map((f) => [dot(mean(f.rim), this.back), () => this.frustum(f)]) : [];
      order(frusta.filter((f) => f[0] <= 0.2));
      if (this.solid && this.show.solid) this.object();
      const things = frusta.filter((f) => f[0] > 0.2);
      this.places = [];
      if (this.show.points) {
        for (const [a, b] of this.scene.edges) things.push(this.edge(a, b));
        this.places = this.scene.points.map((p) => {
          const at = this.project(p.xyz), grown = Math.sqrt(this.state.zoom / START.zoom);
          return { ...at, k: p.k, p, r: Math.max(6.5, Math.min(11, 7.5 * grown)), hidden: this.covered(at) };
        });
        this.spread();
        for (const place of this.places) things.push([place.away, () => this.point(place)]);
      }
      if (this.show.landmarks) for (const l of this.scene.landmarks) things.push([dot(l.xyz, this.back), () => this.landmark(l)]);
      order(things);
      const label = this.hovered || this.places.find((place) => place.k === this.chosen);
      const now = label && this.places.find((place) => place.k === label.k);
      if (now) this.tag(now, `${now.p.name} · score ${now.p.score.toFixed(2)}`);
    }

    // The faces that look this way, the furthest first, with light from above the eye's left shoulder.
    object() {
      const { places, quads, normals, colors, count } = this.solid, g = this.g;
      const spots = new Float32Array(places.length);
      for (let v = 0; v < places.length; v += 3) {
        const q = this.project([places[v], places[v + 1], places[v + 2]]);
        spots[v] = q.x; spots[v + 1] = q.y; spots[v + 2] = q.away;
      }
      const light = [0, 1, 2].map((i) => 0.75 * this.back[i] + 0.5 * this.up[i] - 0.35 * this.right[i]);
      const corner = (f, i) => 3 * quads[4 * f + i];
      const faces = [];
      for (let f = 0; f < count; f++) {
        const [a, b, c, d] = [0, 1, 2, 3].map((i) => corner(f, i));
        const turn = (spots[c] - spots[a]) * (spots[d + 1] - spots[b + 1]) - (spots[c + 1] - spots[a + 1]) * (spots[d] - spots[b]);
        if (turn < 0) faces.push([f, spots[a + 2] + spots[b + 2] + spots[c + 2] + spots[d + 2]]);
      }
      faces.sort((a, b) => a[1] - b[1]);
      g.lineWidth = 0.9;
      g.lineJoin = "round";
      for (const [f] of faces) {
        const n = 3 * f, shine = normals[n] * light[0] + normals[n + 1] * light[1] + normals[n + 2] * light[2];
        const bright = 0.55 + 0.5 * Math.max(0, shine);
        g.fillStyle = g.strokeStyle = `rgb(${[0, 1, 2].map((i) => Math.min(255, Math.round(bright * colors[n + i] + 14))).join(",")})`;
        g.beginPath();
        for (let i = 0; i < 4; i++) g.lineTo(spots[corner(f, i)], spots[corner(f, i) + 1]);
        g.closePath();
        g.fill();
        g.stroke();
      }
      this.front = { spots, faces };
    }

    // Whether the object's surface is well in front of a place.
    covered({ x, y, away }) {
      if (!this.solid || !this.show.solid) return false;
      const { spots, faces } = this.front, { quads } = this.solid;
      return faces.some(([f, depth]) => {
        if (depth / 4 < away + 0.07) return false;
        let inside = false;
        for (let i = 0, j = 3; i < 4; j = i++) {
          const a = 3 * quads[4 * f + i], b = 3 * quads[4 * f + j];
          if ((spots[a + 1] > y) !== (spots[b + 1] > y) && x < ((spots[b] - spots[a]) * (y - spots[a + 1])) / (spots[b + 1] - spots[a + 1]) + spots[a]) inside = !inside;
        }
        return inside;
      });
    }

    // Numbers that would lie on each other stand apart, at the ends of lines; as crowding.py does on the pictures.
    spread() {
      const taken = [], free = (spot, place) =>
        taken.every((t) => Math.hypot(t[0] - spot[0], t[1] - spot[1]) >= 2 * place.r) &&
        this.places.every((q) => q === place || q.p.faint || Math.hypot(q.x - spot[0], q.y - spot[1]) >= place.r + 2.5);
      for (const place of [...this.places].sort((a, b) => b.p.score - a.p.score)) {
        const near = this.places.filter((q) => q !== place && Math.hypot(q.x - place.x, q.y - place.y) < 6 * place.r);
        const first = Math.atan2(near.reduce((s, q) => s + place.y - q.y, 0), near.reduce((s, q) => s + place.x - q.x, 0));
        place.label = null;
        if (place.p.faint) continue;
        const spots = [[place.x, place.y]];
        for (const far of this.places.length > 48 ? [] : [2, 3, 4, 5]) for (let i = 0; i < 16; i++) {
          const turn = first + (Math.ceil(i / 2) * (i % 2 ? 1 : -1) * Math.PI) / 8;
          spots.push([place.x + far * place.r * Math.cos(turn), place.y + far * place.r * Math.sin(turn)]);
        }
        place.label = spots.find((spot) => free(spot, place)) || null;
        if (place.label) taken.push(place.label);
      }
    }

    line(points, color, width, closed) {
      const g = this.g;
      g.beginPath();
      points.forEach((p, i) => { const q = this.project(p); if (i) g.lineTo(q.x, q.y); else g.moveTo(q.x, q.y); });
      if (closed) g.closePath();
      g.strokeStyle = color;
      g.lineWidth = width;
      g.stroke();
    }

    ground() {
      const ring = [...Array(48)].map((_, i) => [0.5 * Math.cos((i * Math.PI) / 24), 0.5 * Math.sin((i * Math.PI) / 24), -0.5]);
      this.line(ring, this.colors.line, 1.5, true);
      this.line([[0, 0, -0.5], [0.5, 0, -0.5]], this.colors.line, 1.5, false);
    }

    edge(a, b) {
      const [p, q] = [this.scene.points[a], this.scene.points[b]];
      const draw = () => {
        if (p.faint || q.faint) return;
        this.g.globalAlpha = this.solid && this.show.solid ? 0.35 : 1;
        this.line([p.xyz, q.xyz], this.colors.soft, 1.2, false);
        this.g.globalAlpha = 1;
      };
      return [dot(mean([p.xyz, q.xyz]), this.back) - 0.02, draw];
    }

    landmark(l) {
      const { x, y } = this.project(l.xyz), g = this.g;
      g.beginPath();
      for (const [dx, dy] of [[0, -5], [5, 0], [0, 5], [-5, 0]]) g.lineTo(x + dx, y + dy);
      g.closePath();
      g.strokeStyle = this.colors.text;
      g.lineWidth = 1.3;
      g.stroke();
      if (this.show.names) this.write(l.name, x + 8, y + 4, this.colors.soft);
    }

    point({ x, y, r, p, label, hidden }) {
      const g = this.g, chosen = this.chosen === p.k, over = this.hovered && this.hovered.k === p.k;
      const disc = (cx, cy, radius) => {
        g.beginPath();
        g.arc(cx, cy, radius, 0, 2 * Math.PI);
        g.fillStyle = p.color;
        g.fill();
        g.lineWidth = 1.2;
        g.strokeStyle = p.ink;
        g.stroke();
      };
      // What lies behind the object is paler, but there.
      g.globalAlpha = this.chosen !== null && !chosen ? 0.16 : p.faint ? 0.45 : hidden && !chosen && !over ? 0.5 : 1;
      const [lx, ly] = label || [x, y], beside = lx !== x || ly !== y;
      if (beside) {
        for (const [color, width] of [[p.ink, 2.4], [p.color, 1.2]]) {
          g.beginPath();
          g.moveTo(x, y);
          g.lineTo(lx, ly);
          g.strokeStyle = color;
          g.lineWidth = width;
          g.stroke();
        }
      }
      if (beside || !label) disc(x, y, 3);
      if (label || chosen || over) {
        const radius = chosen || over ? r * 1.25 : r;
        disc(lx, ly, radius);
        g.fillStyle = p.ink;
        g.font = `700 ${Math.round(radius * 1.2)}px system-ui, sans-serif`;
        g.textAlign = "center";
        g.textBaseline = "middle";
        g.fillText(String(p.k), lx, ly + 0.5);
      }
      if (this.show.names && !p.faint) this.write(p.name, lx + r + 4, ly + 4, this.colors.text);
      g.globalAlpha = 1;
    }

    write(words, x, y, color, ground = this.colors.ground) {
      const g = this.g;
      g.font = "12px system-ui, sans-serif";
      g.textAlign = "left";
      g.textBaseline = "alphabetic";
      // On a rim of the ground's colour, so that it reads on the object too.
      g.strokeStyle = ground;
      g.lineWidth = 3;
      g.lineJoin = "round";
      g.strokeText(words, x, y);
      g.fillStyle = color;
      g.fillText(words, x, y);
    }

    tag({ x, y, r }, words) {
      const g = this.g;
      g.font = "13px system-ui, sans-serif";
      const width = g.measureText(words).width + 14;
      const left = Math.max(4, Math.min(this.width - width - 4, x - width / 2)), top = Math.max(4, y - r - 32);
      g.fillStyle = this.colors.card;
      g.strokeStyle = this.colors.line;
      g.lineWidth = 1;
      g.beginPath();
      g.roundRect(left, top, width, 24, 6);
      g.fill();
      g.stroke();
      this.write(words, left + 7, top + 16.5, this.colors.text, this.colors.card);
    }

    frustum(f) {
      const g = this.g, image = this.panel.querySelector(`img[data-tile="${f.tile}"]`);
      // What hangs between the eye and the object must not hide it.
      g.globalAlpha = dot(mean(f.rim), this.back) > 0.2 ? 0.1 : 0.95;
      if (image && image.complete && image.naturalWidth) this.paint(image, f.rim);
      g.globalAlpha = Math.max(g.globalAlpha, 0.5);
      for (let i = 0; i < 4; i++) this.line([f.tip[i], f.rim[i]], this.colors.soft, 1, false);
      this.line(f.rim, this.colors.soft, 1.2, true);
      const top = this.project(mean([f.rim[0], f.rim[1]]));
      g.globalAlpha = 1;
      this.write(f.name, top.x - 16, top.y - 5, this.colors.soft);
    }

    // A picture on a quadrilateral: cells small enough that an affine map of each half does.
    paint(image, rim) {
      const n = 5, g = this.g, size = [image.naturalWidth, image.naturalHeight];
      const at = (u, v) => this.project(mix(mix(rim[0], rim[1], u), mix(rim[3], rim[2], u), v));
      for (let i = 0; i < n; i++) for (let j = 0; j < n; j++) {
        const corner = (a, b) => { const u = (i + a) / n, v = (j + b) / n, q = at(u, v); return [q.x, q.y, u * size[0], v * size[1]]; };
        const [a, b, c, d] = [corner(0, 0), corner(1, 0), corner(1, 1), corner(0, 1)];
        for (const triangle of [[a, b, c], [a, c, d]]) this.triangle(image, triangle);
      }
    }

    triangle(image, [a, b, c]) {
      const g = this.g;
      const det = (b[2] - a[2]) * (c[3] - a[3]) - (c[2] - a[2]) * (b[3] - a[3]);
      const of = (k) => [
        ((b[k] - a[k]) * (c[3] - a[3]) - (c[k] - a[k]) * (b[3] - a[3])) / det,
        ((c[k] - a[k]) * (b[2] - a[2]) - (b[k] - a[k]) * (c[2] - a[2])) / det,
      ];
      const [xu, xv] = of(0), [yu, yv] = of(1);
      // Half a pixel outwards, or the seams show.
      const mx = (a[0] + b[0] + c[0]) / 3, my = (a[1] + b[1] + c[1]) / 3;
      g.save();
      g.beginPath();
      for (const p of [a, b, c]) {
        const away = Math.hypot(p[0] - mx, p[1] - my) || 1;
        g.lineTo(p[0] + (0.6 * (p[0] - mx)) / away, p[1] + (0.6 * (p[1] - my)) / away);
      }
      g.clip();
      g.transform(xu, yu, xv, yv, a[0] - xu * a[2] - xv * a[3], a[1] - yu * a[2] - yv * a[3]);
      g.drawImage(image, 0, 0);
      g.restore();
    }
  }

  const start = () => {
    for (const canvas of document.querySelectorAll("canvas[data-ko-scene]:not([data-ko-ready])")) {
      canvas.dataset.koReady = "yes";
      new Viewer(canvas);
    }
  };
  // Panels may come later, as in the app.
  new MutationObserver(start).observe(document.documentElement, { childList: true, subtree: true });
  start();
})();
