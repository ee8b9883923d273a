// An annotator's hands: choose a point, click or drag it, move it by keys; every step goes to the server by one button.
(() => {
  "use strict";
  let chosen = null, drag = null, silent = false, adding = null;
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
    adding = kind === "add" || kind === "create" ? panel.querySelectorAll(".ko-chip").length : null;
    window.koStep = [kind, Number(panel.dataset.revision), point, view, x, y, name];
    button.click();
  };
  const place = (picture, k, x, y) => {
    const view = picture.dataset.view === "" ? null : Number(picture.dataset.view);
    const at = { view, x: clamp(x), y: clamp(y) };
    if (k === null) send("create", at);
    else send("place", { point: Number(k), ...at });
  };
  // Of one's own points, a click makes a new one where none is chosen, or the chosen one was clicked in this view.
  const own = () => board().matches(".ko-own");
  const pointOf = (picture) => {
    if (!own() || chosen === null) return chosen;
    const mark = markOf(picture, chosen);
    return mark && !mark.matches(".ko-clicked") ? chosen : null;
  };
  const at = (picture, event) => {
    const box = picture.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
  };

  const need = () => {
    // What is chosen may be a keypoint of another tab, which the board has not.
    const chip = chosen === null ? null : document.querySelector(`.ko-annotate .ko-chip[data-k="${chosen}"]`);
    for (const button of document.querySelectorAll(".ko-annotate [data-needs=point]")) button.disabled = chip === null;
    const field = document.querySelector(".ko-annotate [data-rename]");
    if (field) field.value = chip ? chip.dataset.name : "";
  };
  document.addEventListener("ko:choice", (event) => { chosen = event.detail; need(); });

  document.addEventListener("pointerdown", (event) => {
    const picture = event.target.closest && event.target.closest(".ko-annotate .ko-picture");
    if (!picture || event.button) return;
    const mark = event.target.closest(".ko-mark"), k = mark ? Number(mark.dataset.k) : pointOf(picture);
    if (k !== null || own()) drag = { picture, k, mark, from: [event.clientX, event.clientY], moved: false };
  });
  document.addEventListener("pointermove", (event) => {
    if (!drag) return;
    drag.moved = drag.moved || Math.hypot(event.clientX - drag.from[0], event.clientY - drag.from[1]) > 3;
    if (drag.moved && drag.k !== null) move(drag.picture, drag.k, ...at(drag.picture, event).map(clamp));
  });
  document.addEventListener("pointerup", (event) => {
    if (!drag) return;
    const { picture, k, mark, moved } = drag;
    drag = null;
    if (mark && !moved && k !== chosen) return;  // a click on another point chooses that one
    if (k !== null && chosen !== k) document.dispatchEvent(new CustomEvent("ko:choose", { detail: k }));
    if (k !== null) move(picture, k, ...at(picture, event).map(clamp));
    place(picture, k, ...at(picture, event));
    silent = Boolean(mark);  // the click that follows is the end of the drag
    setTimeout(() => { silent = false; }, 50);
  });
  document.addEventListener("pointercancel", () => { drag = null; });
  document.addEventListener("click", (event) => {
    if (silent) { silent = false; event.stopPropagation(); return; }
    // What comes next is about all points; chosen again, the chosen one is let go.
    if (chosen !== null && event.target.closest && event.target.closest("#own, #fit"))
      document.dispatchEvent(new CustomEvent("ko:choose", { detail: chosen }));
    if (event.target.closest && event.target.closest(".ko-annotate [data-next]")) {
      document.dispatchEvent(new CustomEvent("ko:choose", { detail: chosen }));
      return;
    }
    const button = event.target.closest && event.target.closest(".ko-annotate button[data-step]");
    if (!button) return;
    const name = button.dataset.step === "add" ? board().querySelector("[data-new]").value : null;
    send(button.dataset.step, { point: button.dataset.needs ? chosen : null, name });
  }, true);
  document.addEventListener("change", (event) => {
    if (!event.target.matches) return;
    if (event.target.matches(".ko-annotate select[data-step]")) send("show", { name: event.target.value });
    if (event.target.matches(".ko-annotate [data-rename]") && event.target.value.trim())
      send("rename", { point: chosen, name: event.target.value });
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
  // An answer: Gradio may change the board's parts in place, and then the choice has to be shown again.
  const answered = () => {
    document.dispatchEvent(new Event("ko:shown"));
    need();
    const panel = board(), count = panel ? panel.querySelectorAll(".ko-chip").length : 0;
    if (adding === null || count <= adding) return;
    adding = null;
    const field = panel.querySelector("[data-new]");
    if (field) field.value = "";
    document.dispatchEvent(new CustomEvent("ko:choose", { detail: count - 1 }));  // the point that was just added
  };
  new MutationObserver((records) => {
    const fresh = (node) => node.querySelector && (node.matches(".ko-annotate") || node.querySelector(".ko-annotate"));
    if (records.some((r) => r.type === "attributes" || [...r.addedNodes].some(fresh))) answered();
  }).observe(document.documentElement, { attributes: true, attributeFilter: ["data-answer"], childList: true, subtree: true });
})();
