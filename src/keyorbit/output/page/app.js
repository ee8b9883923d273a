// Gradio's example pictures have no words: number them for who cannot see them.
new MutationObserver(() => {
  document.querySelectorAll(".gallery-item:not([aria-label])").forEach((item) => {
    const all = [...item.parentElement.querySelectorAll(".gallery-item")];
    item.setAttribute("aria-label", `Example ${all.indexOf(item) + 1}`);
  });
}).observe(document.documentElement, { childList: true, subtree: true });
