// An annotator's hands: choose a point, click or drag it, move it by keys; every step goes to the server by one button.
(() => {
  "use strict";
  let chosen = null, drag = null, silent = false;
  const board = () => document.querySelector(".ko-annotate");
  const markOf = (picture, k) => picture.querySelector(`.ko-mark[data-k="${k}"]`);
  const move = (picture, k, x, y) => {
    const mark = markOf(picture, k);
    if (!mark) return;
    mark.removeAttribute("hidden");
    mark.setAttribute("transform", `translate(${(100 * x).toFixed(2)} ${(100 * y).toFixed(2)})`);
  };
  const clamp = (value) => Math.min(1, Math.max(0, value));

  // The button's own script reads what to send; until the answer comes, nothing else is sent.
  const send = (kind, { point = null, view = null, x = null, y = null, name = null } = {}) => {
    const panel = board(), button = document.querySelector("#step");
    if (!panel || !button || panel.classList.contains("is-busy")) return;
    panel.classList.add("is-busy");
    setTimeout(() => panel.classList.remove("is-busy"), 8000);
    window.koStep = [kind, Number(panel.dataset.revision), point, view, x, y, name];
    button.click();
  };
  const place = (picture, k, x, y) => {
    const view = picture.dataset.view === "" ? null : Number(picture.dataset.view);
    send("place", { point: Number(k), view, x: clamp(x), y: clamp(y) });
  };
  const at = (picture, event) => {
    const box = picture.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
  };

  const need = () => {
    for (const button of document.querySelectorAll(".ko-annotate [data-needs=point]")) button.disabled = chosen === null;
  };
  document.addEventListener("ko:choice", (event) => { chosen = event.detail; need(); });

  document.addEventListener("pointerdown", (event) => {
    const picture = event.target.closest && event.target.closest(".ko-annotate .ko-picture");
    if (!picture || event.button) return;
    const mark = event.target.closest(".ko-mark"), k = mark ? Number(mark.dataset.k) : chosen;
    if (k !== null) drag = { picture, k, mark, from: [event.clientX, event.clientY], moved: false };
  });
  document.addEventListener("pointermove", (event) => {
    if (!drag) return;
    drag.moved = drag.moved || Math.hypot(event.clientX - drag.from[0], event.clientY - drag.from[1]) > 3;
    if (drag.moved) move(drag.picture, drag.k, ...at(drag.picture, event).map(clamp));
  });
  document.addEventListener("pointerup", (event) => {
    if (!drag) return;
    const { picture, k, mark, moved } = drag;
    drag = null;
    if (mark && !moved) return;  // a click on a point chooses it
    if (chosen !== k) document.dispatchEvent(new CustomEvent("ko:choose", { detail: k }));
    move(picture, k, ...at(picture, event).map(clamp));
    place(picture, k, ...at(picture, event));
    silent = Boolean(mark);  // the click that follows is the end of the drag
    setTimeout(() => { silent = false; }, 50);
  });
  document.addEventListener("pointercancel", () => { drag = null; });
  document.addEventListener("click", (event) => {
    if (silent) { silent = false; event.stopPropagation(); return; }
    const button = event.target.closest && event.target.closest(".ko-annotate button[data-step]");
    if (!button) return;
    const name = button.dataset.step === "add" ? board().querySelector("[data-new]").value : null;
    send(button.dataset.step, { point: button.dataset.needs ? chosen : null, name });
  }, true);
  document.addEventListener("change", (event) => {
    if (event.target.matches && event.target.matches(".ko-annotate select[data-step]")) send("show", { name: event.target.value });
  });
  document.addEventListener("keydown", (event) => {
    const field = event.target.closest && event.target.closest(".ko-annotate [data-new]");
    if (field && event.key === "Enter") { send("add", { name: field.value }); return; }
    const picture = event.target.closest && event.target.closest(".ko-annotate .ko-picture");
    const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (!picture || chosen === null || !(way || event.key === "Enter")) return;
    const mark = markOf(picture, chosen);
    if (!mark) return;
    const [x, y] = mark.getAttribute("transform").match(/[-\d.]+/g).map((number) => Number(number) / 100);
    event.preventDefault();
    const step = event.shiftKey ? 0.002 : 0.01;
    if (way) move(picture, chosen, clamp(x + step * way[0]), clamp(y + step * way[1]));
    else place(picture, chosen, x, y);
  });
  // A new board: its buttons, and the point that was just added.
  new MutationObserver((records) => {
    if (records.some((r) => [...r.addedNodes].some((n) => n.querySelector && (n.matches(".ko-annotate") || n.querySelector(".ko-annotate"))))) need();
  }).observe(document.documentElement, { childList: true, subtree: true });
})();
