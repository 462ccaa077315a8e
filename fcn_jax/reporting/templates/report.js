"use strict";
// Sorting: numbers from the highest at first, names from the first; what is missing
// stays last. A second time turns the order around.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  const compareNames = new Intl.Collator(undefined, { numeric: true }).compare;
  heads.forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => {
      const numeric = column > 0;
      const before = head.getAttribute("aria-sort");
      const first = numeric ? "descending" : "ascending";
      const second = numeric ? "ascending" : "descending";
      const order = before === first ? second : first;
      const sign = order === "ascending" ? 1 : -1;
      const key = (row) => {
        const cell = row.cells[column];
        return numeric ? cell.dataset.value : cell.textContent.trim();
      };
      const compare = (one, other) => {
        const a = key(one), b = key(other);
        if (a === "" || b === "") return (a === "") - (b === "");
        return sign * (numeric ? Number(a) - Number(b) : compareNames(a, b));
      };
      body.append(...[...body.rows].sort(compare));
      heads.forEach((h) => h.setAttribute("aria-sort", h === head ? order : "none"));
    });
  });
}

// Pictures, enlarged. The dialog itself gives Escape and hands the focus back.
const dialog = document.querySelector("dialog");
const large = dialog.querySelector("img");
const buttons = [...document.querySelectorAll("button.picture")];
let shown = 0;

function show(index) {
  shown = (index + buttons.length) % buttons.length;
  const picture = buttons[shown].querySelector("img");
  large.src = picture.src;
  large.alt = picture.alt;
  large.className = picture.className;
  dialog.querySelector("#caption").textContent = picture.alt;
}

buttons.forEach((button, index) => {
  const picture = button.querySelector("img");
  if (Number(picture.getAttribute("width")) < 200) picture.className = "small";
  button.addEventListener("click", () => { show(index); dialog.showModal(); });
});
dialog.addEventListener("keydown", (event) => {
  if (event.key === "ArrowRight") show(shown + 1);
  if (event.key === "ArrowLeft") show(shown - 1);
});
dialog.addEventListener("close", () => buttons[shown].focus());
dialog.addEventListener("click", (event) => {
  if (event.target === dialog || event.target === large
    || event.target.closest(".close")) dialog.close();
});
