"use strict";
// Tables that a reader can sort, and details that are open on paper. Without this script the tables stay as they are.
(() => {
  const UNITS = { s: 1, min: 60, h: 3600 };
  const WORDS = new Intl.Collator(undefined, { numeric: true, sensitivity: "base" });

  // A cell's worth: data-sort, or the number that it begins with, or its words; null where it is empty.
  function worth(cell) {
    if (!cell) return null;
    if (cell.dataset.sort !== undefined) return number(cell.dataset.sort) ?? cell.dataset.sort;
    const text = (cell.querySelector(".v") ?? cell).textContent.trim();
    if (text === "" || text === "\u2013") return null;
    return number(text) ?? text;
  }

  function number(text) {
    const plain = text.trim().replace(/\u2212/g, "-").replace(/^[<=>\u2264\u2265~]\s*/, "");
    const found = /^([+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)\s*(s|min|h|%)?(?![\w.])/i.exec(plain);
    if (!found) return null;
    // Less than 0.001 comes before 0.001.
    return Number(found[1]) * (UNITS[found[2]] ?? 1) - (/^</.test(text.trim()) ? 1e-12 : 0);
  }

  function compare(a, b) {
    if (typeof a === "number" && typeof b === "number") return a - b;
    if (typeof a === "number") return -1;
    if (typeof b === "number") return 1;
    return WORDS.compare(a, b);
  }

  function sort(table, column, direction) {
    for (const body of table.tBodies) {
      const heads = [...body.rows].filter((row) => row.classList.contains("group"));
      const rows = original.get(body).filter((row) => !row.classList.contains("group"));
      if (direction) {
        const keyed = rows.map((row, place) => ({ row, place, key: worth(row.cells[column]) }));
        const sign = direction === "descending" ? -1 : 1;
        keyed.sort((a, b) => {
          if (a.key === null || b.key === null) return (a.key === null) - (b.key === null) || a.place - b.place;
          return sign * compare(a.key, b.key) || a.place - b.place;
        });
        body.append(...heads, ...keyed.map((item) => item.row));
      } else {
        body.append(...heads, ...rows);
      }
    }
  }

  const original = new Map();
  const NEXT = { none: "ascending", ascending: "descending", descending: "none" };

  for (const table of document.querySelectorAll("main table")) {
    const head = table.tHead;
    const several = [...table.tBodies].some((b) => [...b.rows].filter((r) => !r.classList.contains("group")).length > 1);
    const plain = head && head.rows.length === 1 && [...head.rows[0].cells].every((c) => c.colSpan === 1 && c.rowSpan === 1);
    const spans = [...table.tBodies].some((b) => [...b.rows].some((r) => [...r.cells].some((c) => c.rowSpan > 1)));
    if (!several || !plain || spans || table.hasAttribute("data-fixed")) continue;
    for (const body of table.tBodies) original.set(body, [...body.rows]);
    [...head.rows[0].cells].forEach((cell, column) => {
      if (!cell.textContent.trim()) return;
      const button = document.createElement("button");
      button.type = "button";
      button.className = "sort";
      button.append(...cell.childNodes);
      cell.append(button);
      cell.setAttribute("aria-sort", "none");
      button.addEventListener("click", () => {
        const direction = NEXT[cell.getAttribute("aria-sort")];
        for (const other of head.rows[0].cells) if (other.hasAttribute("aria-sort")) other.setAttribute("aria-sort", "none");
        cell.setAttribute("aria-sort", direction);
        sort(table, column, direction === "none" ? null : direction);
      });
    });
  }

  const opened = [];
  addEventListener("beforeprint", () => {
    for (const part of document.querySelectorAll("details:not([open])")) {
      part.open = true;
      opened.push(part);
    }
  });
  addEventListener("afterprint", () => {
    while (opened.length) opened.pop().open = false;
  });
})();
