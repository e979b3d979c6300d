"use strict";
for (const slides of document.querySelectorAll(".slides")) {
  const range = slides.querySelector("input");
  const figures = [...slides.querySelectorAll("figure[data-step]")];
  if (!range) continue;
  const show = () => {
    figures.forEach((figure, i) => { figure.hidden = i !== Number(range.value); });
    range.setAttribute("aria-valuetext", figures[range.value].dataset.step + " steps");
  };
  range.addEventListener("input", show);
  show();
}
for (const divider of document.querySelectorAll(".divider")) {
  const range = divider.querySelector("input");
  const pictures = divider.querySelector("div");
  range.addEventListener("input", () => pictures.style.setProperty("--at", range.value + "%"));
}
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    const button = document.createElement("button");
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const rows = [...body.rows];
      const text = (row) => row.cells[column].textContent.trim();
      const compare = (a, b) => {
        const [x, y] = [parseFloat(text(a)), parseFloat(text(b))];
        if (!Number.isNaN(x) && !Number.isNaN(y)) return x - y;
        if (Number.isNaN(x) !== Number.isNaN(y)) return Number.isNaN(x) ? 1 : -1;
        return text(a).localeCompare(text(b));
      };
      rows.sort((a, b) => (down ? -compare(a, b) : compare(a, b)));
      body.append(...rows);
    });
  });
}
if ("live" in document.body.dataset) {
  let known = null;
  const ask = async () => {
    try {
      const answer = await fetch("/version");
      const version = await answer.text();
      if (known !== null && version !== known) location.reload();
      known = version;
    } catch {
      // The server has ended; the page stays as it is.
      return;
    }
    setTimeout(ask, 3000);
  };
  ask();
}
