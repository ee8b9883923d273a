// What Gradio leaves out for who cannot see: example pictures have no words, so they get numbers; an empty component has
// a name but no role; a place to drop a picture has a name without the words that it shows.
new MutationObserver(() => {
  document.querySelectorAll(".gallery-item:not([aria-label])").forEach((item) => {
    const all = [...item.parentElement.querySelectorAll(".gallery-item")];
    item.setAttribute("aria-label", `Example ${all.indexOf(item) + 1}`);
  });
  document.querySelectorAll(".empty[aria-label]:not([role])").forEach((empty) => empty.setAttribute("role", "img"));
  document.querySelectorAll("button[aria-dropeffect][aria-label]").forEach((drop) => drop.removeAttribute("aria-label"));
}).observe(document.documentElement, { childList: true, subtree: true });
