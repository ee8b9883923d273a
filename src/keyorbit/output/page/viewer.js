// Keypoints in space on a canvas: points, names, edges, and the views on their frusta. Mouse, touch and keyboard.
(() => {
  "use strict";
  const START = { yaw: 0.6, pitch: 0.42, zoom: 1.4 };
  const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
  const sub = (a, b) => [a[0] - b[0], a[1] - b[1], a[2] - b[2]];
  const mix = (a, b, t) => a.map((v, i) => v + (b[i] - v) * t);
  const mean = (list) => list.reduce((s, p) => s.map((v, i) => v + p[i] / list.length), [0, 0, 0]);

  class Viewer {
    constructor(canvas) {
      this.canvas = canvas;
      this.scene = JSON.parse(canvas.dataset.koScene);
      this.stage = canvas.closest(".ko-stage");
      this.panel = canvas.closest(".ko-panel");
      this.state = { ...START };
      this.show = { names: false, frusta: true, landmarks: true };
      this.chosen = null;
      this.hovered = null;
      this.pointers = new Map();
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
          this.state = { yaw: Math.atan2(y, x), pitch: Math.atan2(z, Math.hypot(x, y)), zoom: 1.9 };
        }
        this.draw();
      });
      for (const box of this.stage.querySelectorAll("[data-ko-show]"))
        box.addEventListener("change", () => { this.show[box.dataset.koShow] = box.checked; this.draw(); });
      if (!this.scene.landmarks.length) this.stage.querySelector("[data-ko-has=landmarks]").hidden = true;
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
      const near = (p) => Math.hypot(p.x - (e.clientX - box.left), p.y - (e.clientY - box.top));
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
      this.colors = { text: css.getPropertyValue("--text"), soft: css.getPropertyValue("--soft"), line: css.getPropertyValue("--line"), card: css.getPropertyValue("--card") };
      const { yaw, pitch, zoom } = this.state;
      this.back = [Math.cos(pitch) * Math.cos(yaw), Math.cos(pitch) * Math.sin(yaw), Math.sin(pitch)];
      this.right = [-Math.sin(yaw), Math.cos(yaw), 0];
      this.up = [-Math.sin(pitch) * Math.cos(yaw), -Math.sin(pitch) * Math.sin(yaw), Math.cos(pitch)];
      this.distance = 3.2 * this.reach;
      this.focal = (0.44 * Math.min(this.width, this.height) * this.distance * zoom) / this.reach / 0.98;
      this.ground();
      const things = [];
      if (this.show.frusta) for (const f of this.scene.frusta) things.push([dot(mean(f.rim), this.back), () => this.frustum(f)]);
      for (const [a, b] of this.scene.edges) things.push(this.edge(a, b));
      if (this.show.landmarks) for (const l of this.scene.landmarks) things.push([dot(l.xyz, this.back), () => this.landmark(l)]);
      this.places = this.scene.points.map((p) => {
        const at = this.project(p.xyz);
        return { ...at, k: p.k, p, r: Math.max(6, Math.min(15, 8.5 * at.scale * this.distance / this.focal * Math.sqrt(zoom))) };
      });
      for (const place of this.places) things.push([place.away, () => this.point(place)]);
      things.sort((a, b) => a[0] - b[0]);
      for (const thing of things) thing[1]();
      const label = this.hovered || this.places.find((place) => place.k === this.chosen);
      if (label) {
        const now = this.places.find((place) => place.k === label.k);
        this.tag(now, `${now.p.name} · score ${now.p.score.toFixed(2)}`);
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
      const draw = () => { if (!p.faint && !q.faint) this.line([p.xyz, q.xyz], this.colors.soft, 1.5, false); };
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

    point({ x, y, r, p }) {
      const g = this.g, dim = this.chosen !== null && this.chosen !== p.k;
      g.globalAlpha = dim ? 0.22 : p.faint ? 0.4 : 1;
      g.beginPath();
      g.arc(x, y, this.chosen === p.k ? r * 1.25 : r, 0, 2 * Math.PI);
      g.fillStyle = p.color;
      g.fill();
      g.lineWidth = 1.2;
      g.strokeStyle = p.ink;
      g.stroke();
      g.fillStyle = p.ink;
      g.font = `700 ${Math.round(r * 1.15)}px system-ui, sans-serif`;
      g.textAlign = "center";
      g.textBaseline = "middle";
      g.fillText(String(p.k), x, y + 0.5);
      if (this.show.names && !p.faint) this.write(p.name, x + r + 4, y + 4, this.colors.text);
      g.globalAlpha = 1;
    }

    write(words, x, y, color) {
      const g = this.g;
      g.font = "12px system-ui, sans-serif";
      g.textAlign = "left";
      g.textBaseline = "alphabetic";
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
      this.write(words, left + 7, top + 16.5, this.colors.text);
    }

    frustum(f) {
      const g = this.g, image = this.panel.querySelector(`img[data-tile="${f.tile}"]`);
      // What hangs between the eye and the object must not hide it.
      g.globalAlpha = dot(mean(f.rim), this.back) > 0.2 ? 0.22 : 0.95;
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
