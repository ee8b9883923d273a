// Follow one keypoint through the page: on the pictures, in the heatmaps, in the scene. And the theme.
(() => {
  "use strict";
  let chosen = null;
  const root = document.documentElement;

  const apply = () => {
    root.classList.toggle("ko-has-choice", chosen !== null);
    for (const element of document.querySelectorAll(".ko-mark, .ko-strips tr[data-k]"))
      element.classList.toggle("is-chosen", element.dataset.k === chosen);
    for (const chip of document.querySelectorAll("button.ko-chip"))
      chip.setAttribute("aria-pressed", String(chip.dataset.k === chosen));
    for (const panel of document.querySelectorAll(".ko-panel")) {
      const strip = chosen === null ? null : panel.querySelector(`[data-strip="${chosen}"]`);
      for (const heat of panel.querySelectorAll(".ko-heat")) {
        heat.classList.toggle("is-on", strip !== null);
        if (strip) heat.style.backgroundImage = `url(${strip.src})`;
      }
    }
    document.dispatchEvent(new CustomEvent("ko:choice", { detail: chosen === null ? null : Number(chosen) }));
  };

  const choose = (k) => { chosen = k === null || k === chosen ? null : k; apply(); };
  document.addEventListener("click", (event) => {
    const target = event.target.closest ? event.target.closest("button.ko-chip, .ko-mark") : null;
    if (target) choose(target.dataset.k);
  });
  // Arrow keys go from keypoint to keypoint in a row of them.
  const neighbour = (chip, step) => {
    const row = [...chip.closest(".ko-legend").querySelectorAll("button.ko-chip")];
    return row[(row.indexOf(chip) + step + row.length) % row.length];
  };
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && chosen !== null) choose(null);
    const chip = event.target.closest ? event.target.closest(".ko-legend button.ko-chip") : null;
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!chip || !step) return;
    event.preventDefault();
    const next = neighbour(chip, step);
    next.focus();
    chosen = next.dataset.k;
    apply();
  });
  // What the mouse is over is shown with its number on every picture of its object.
  const near = (event) => {
    const mark = event.target.closest ? event.target.closest(".ko-mark") : null;
    const panel = mark && mark.closest(".ko-panel");
    for (const element of document.querySelectorAll(".ko-mark.is-near")) element.classList.remove("is-near");
    if (panel) for (const element of panel.querySelectorAll(`.ko-mark[data-k="${mark.dataset.k}"]`)) element.classList.add("is-near");
  };
  document.addEventListener("pointerover", near);
  document.addEventListener("change", (event) => {
    const box = event.target.closest ? event.target.closest("[data-ko-marks]") : null;
    if (!box) return;
    const [name, on] = { points: ["ko-bare", !box.checked], numbers: ["ko-unnumbered", !box.checked], names: ["ko-named", box.checked] }[box.dataset.koMarks];
    box.closest(".ko-panel").classList.toggle(name, on);
  });
  document.addEventListener("ko:choose", (event) => choose(String(event.detail)));
  document.addEventListener("ko:shown", apply);
  // Panels that come later, as in the app.
  new MutationObserver((records) => {
    if (records.some((r) => [...r.addedNodes].some((n) => n.querySelector && n.querySelector(".ko-panel")))) apply();
  }).observe(root, { childList: true, subtree: true });

  const button = document.querySelector("[data-ko-theme]");
  if (button) {
    const system = matchMedia("(prefers-color-scheme: dark)");
    const dark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
    const label = () => {
      button.textContent = dark() ? "Light" : "Dark";
      button.setAttribute("aria-label", `Change to the ${dark() ? "light" : "dark"} theme`);
    };
    button.addEventListener("click", () => {
      root.dataset.theme = dark() ? "light" : "dark";
      label();
      document.dispatchEvent(new CustomEvent("ko:theme"));
    });
    system.addEventListener("change", () => { label(); document.dispatchEvent(new CustomEvent("ko:theme")); });
    label();
  }
})();
