// The table of streams: columns, order, search, and which rows are brought up to date.

import { element, setAttribute, setClass, setHidden, setText } from "./dom.js";
import { NONE, age, bitRate, clock, count, grouped, plural, times } from "./format.js";

const ROWS_AT_FIRST = 20;
// Rows that change places each second cannot be read or clicked.
const SORT_EVERY_MS = 5_000;
// Updates until each row off the screen has had its turn.
const HIDDEN_ROUND = 10;

const byNumber = (value) => (row) => value(row) ?? -1;

const COLUMNS = [
  {
    id: "name",
    title: "Stream",
    sortBy: (row) => row.name,
    isText: true,
  },
  {
    id: "viewers",
    title: "Viewers",
    sortBy: byNumber((row) => row.viewers),
    text: (row) => grouped(row.viewers ?? NaN),
  },
  {
    id: "requests",
    title: "Requests/s",
    sortBy: byNumber((row) => row.requestRate),
    text: (row) => count(row.requestRate),
    isWide: true,
  },
  {
    id: "rate",
    title: "Bit rate",
    sortBy: byNumber((row) => row.byteRate),
    text: (row) => bitRate(row.byteRate),
    isWide: true,
  },
  {
    id: "age",
    title: "Live-edge age",
    shortTitle: "Age",
    hint: "Time since the newest version of the most watched manifest was made. Late beyond 1.5 times the usual interval, very late beyond 3 times.",
    sortBy: byNumber((row) => row.edgeAge),
  },
  {
    id: "load",
    title: "Origin load",
    hint: "Origin requests of the last minute, divided by those that an ideal cache would make. 1.00× is perfect.",
    sortBy: byNumber((row) => row.load),
    text: (row) => times(row.load),
    isWide: true,
  },
  {
    id: "errors",
    title: "Errors",
    hint: "Errors in the last minute.",
    sortBy: byNumber((row) => row.errors),
    text: (row) => count(row.errors ?? NaN),
  },
  {
    id: "error",
    title: "Last error",
    sortBy: byNumber((row) => row.lastError?.at_ms),
    isText: true,
    isWide: true,
  },
];

const byProblem = (a, b) =>
  b.severity - a.severity || (b.viewers ?? 0) - (a.viewers ?? 0) || (a.name < b.name ? -1 : 1);

/** The state of a stream in one or two words; empty if all is well. */
export function stateWord(row) {
  if (row.isStalled) return "stalled";
  if (row.isVeryLate) return "very late";
  if (row.isLate) return "late";
  return "";
}

export class StreamTable {
  #parts;
  #onOpen;
  #model = null;
  #rows = new Map();
  #shown = [];
  #visible = new Set();
  #sort = { column: null, isDescending: true };
  #query = "";
  #showsAll = false;
  #sortedAtMs = 0;
  #mustSort = true;
  #known = 0;
  #turn = 0;
  #matching = 0;
  #observer;

  constructor(parts, onOpen) {
    this.#parts = parts;
    this.#onOpen = onOpen;
    this.#observer = new IntersectionObserver((entries) => this.#see(entries), {
      rootMargin: "200px",
    });
    parts.heads.append(...COLUMNS.map((column) => this.#head(column)));
    parts.search.addEventListener("input", () => {
      this.#query = parts.search.value.trim().toLowerCase();
      this.#refresh();
    });
    parts.showAll.addEventListener("click", () => {
      this.#showsAll = !this.#showsAll;
      this.#refresh();
    });
    parts.body.addEventListener("click", (event) => this.#click(event));
    parts.body.addEventListener("keydown", (event) => this.#move(event));
  }

  update(model) {
    this.#model = model;
    const isDue = performance.now() - this.#sortedAtMs > SORT_EVERY_MS && !this.#isInUse();
    if (this.#mustSort || isDue || model.streams.size !== this.#known) this.#arrange();
    for (const name of this.#visible) this.#updateRow(name);
    this.#updateSomeHidden();
    this.#count();
  }

  #updateRow(name) {
    const row = this.#model.streams.get(name);
    if (row) this.#rows.get(name)?.update(row);
  }

  /** Rows off the screen take turns, for the browser's own search, for paper and screen readers. */
  #updateSomeHidden() {
    const length = Math.ceil(this.#shown.length / HIDDEN_ROUND);
    for (let index = 0; index < length; index += 1) {
      this.#turn = (this.#turn + 1) % this.#shown.length;
      const name = this.#shown[this.#turn];
      if (!this.#visible.has(name)) this.#updateRow(name);
    }
  }

  focusRow(name) {
    this.#rows.get(name)?.button.focus();
  }

  #refresh() {
    this.#mustSort = true;
    if (this.#model) this.update(this.#model);
  }

  /** Whether someone points at a row or has the focus in one: then the rows stay where they are. */
  #isInUse() {
    const { body } = this.#parts;
    return body.matches(":hover") || body.contains(document.activeElement);
  }

  #head(column) {
    const button = element(
      "button",
      { type: "button", class: "sort" },
      element("span", { class: column.shortTitle ? "long" : null }, column.title),
      column.shortTitle
        ? element("span", { class: "short", "aria-hidden": "true" }, column.shortTitle)
        : null,
    );
    const head = element(
      "th",
      {
        scope: "col",
        role: "columnheader",
        class: columnClass(column),
        title: column.hint,
        "data-column": column.id,
      },
      button,
    );
    button.addEventListener("click", () => {
      this.#chooseSort(column);
      this.#refresh();
    });
    return head;
  }

  /** First the order that is asked for most, then the other, then problems first again. */
  #chooseSort(column) {
    const first = !(column.id === "name");
    if (this.#sort.column !== column) this.#sort = { column, isDescending: first };
    else if (this.#sort.isDescending === first) this.#sort = { column, isDescending: !first };
    else this.#sort = { column: null, isDescending: true };
    for (const head of this.#parts.heads.children) {
      const isSorted = head.dataset.column === this.#sort.column?.id;
      const order = this.#sort.isDescending ? "descending" : "ascending";
      setAttribute(head, "aria-sort", isSorted ? order : null);
    }
  }

  #ordered() {
    const rows = [...this.#model.streams.values()].filter((row) =>
      row.name.toLowerCase().includes(this.#query),
    );
    const { column, isDescending } = this.#sort;
    if (!column) return rows.sort(byProblem);
    const sign = isDescending ? -1 : 1;
    return rows.sort((a, b) => {
      const [left, right] = [column.sortBy(a), column.sortBy(b)];
      if (left === right) return a.name < b.name ? -1 : 1;
      return left < right ? -sign : sign;
    });
  }

  #arrange() {
    this.#mustSort = false;
    this.#sortedAtMs = performance.now();
    this.#known = this.#model.streams.size;
    const all = this.#ordered();
    const wanted = this.#showsAll ? all : all.slice(0, ROWS_AT_FIRST);
    this.#matching = all.length;
    const names = wanted.map((row) => row.name);
    if (names.length === this.#shown.length && names.every((name, i) => name === this.#shown[i])) {
      return;
    }
    this.#shown = names;
    const keep = new Set(names);
    for (const [name, row] of this.#rows) {
      if (keep.has(name)) continue;
      this.#observer.unobserve(row.element);
      this.#rows.delete(name);
      this.#visible.delete(name);
    }
    const elements = wanted.map((row) => this.#rowOf(row).element);
    const focused = document.activeElement;
    this.#parts.body.replaceChildren(...elements);
    if (focused !== document.activeElement && this.#parts.body.contains(focused)) focused.focus();
  }

  #rowOf(row) {
    let made = this.#rows.get(row.name);
    if (!made) {
      made = new StreamRow(row.name);
      made.update(row);
      this.#rows.set(row.name, made);
      this.#observer.observe(made.element);
    }
    return made;
  }

  /** Rows on the screen are always up to date; one that comes into view is at once. */
  #see(entries) {
    for (const { target, isIntersecting } of entries) {
      const { name } = target.dataset;
      if (!isIntersecting) {
        this.#visible.delete(name);
        continue;
      }
      this.#visible.add(name);
      this.#updateRow(name);
    }
  }

  #count() {
    const { showAll, more, empty, count: label } = this.#parts;
    const total = this.#model.streams.size;
    const leftOut = this.#model.latest.streams_left_out ?? 0;
    const others = leftOut > 0 ? `, ${grouped(leftOut)} more not listed by the server` : "";
    const found = this.#query ? `${grouped(this.#matching)} of ${grouped(total)}` : grouped(total);
    setText(label, `${found}${others}`);
    setHidden(more, this.#matching <= ROWS_AT_FIRST);
    const fewer = `Show the first ${ROWS_AT_FIRST}`;
    setText(showAll, this.#showsAll ? fewer : `Show all ${plural(this.#matching, "stream")}`);
    setHidden(empty, this.#matching > 0);
    setText(
      empty,
      total === 0 ? "No live stream is watched." : `No stream matches “${this.#query}”.`,
    );
  }

  #click(event) {
    const row = event.target.closest("tr");
    if (row && getSelection().isCollapsed) this.#onOpen(row.dataset.name);
  }

  #move(event) {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    const row = event.target.closest("tr");
    if (!step || !row) return;
    const next = step > 0 ? row.nextElementSibling : row.previousElementSibling;
    next?.querySelector("button").focus();
    event.preventDefault();
  }
}

const columnClass = (column) =>
  `column-${column.id}${column.isText ? "" : " number"}${column.isWide ? " wide" : ""}`;

class StreamRow {
  constructor(name) {
    this.cells = Object.fromEntries(
      COLUMNS.map((column) => [
        column.id,
        element("td", { role: "cell", class: columnClass(column) }),
      ]),
    );
    this.button = element("button", { type: "button", class: "stream-name" }, name);
    this.cells.name.append(this.button);
    this.state = element("span", { class: "state" });
    this.age = element("span");
    this.cells.age.append(this.state, this.age);
    this.element = element("tr", { role: "row", "data-name": name }, ...Object.values(this.cells));
  }

  update(row) {
    for (const column of COLUMNS) {
      if (column.text) setText(this.cells[column.id], column.text(row));
    }
    setText(this.age, age(row.edgeAge));
    setText(this.state, stateWord(row));
    setClass(this.cells.errors, "is-warning", row.errors > 0);
    setClass(this.cells.load, "is-warning", row.load > 1.5);
    const isLate = row.isLate ? (row.isVeryLate ? "error" : "warning") : null;
    setAttribute(this.cells.age, "data-severity", isLate);
    setAttribute(this.element, "data-severity", ["none", "warning", "error"][row.severity]);
    this.#updateError(row.lastError);
  }

  #updateError(error) {
    const cell = this.cells.error;
    const key = error ? `${error.at_ms} ${error.text}` : "";
    if (key === this.errorKey) return;
    this.errorKey = key;
    if (!error) return setText(cell, NONE);
    setText(cell, `${clock(error.at_ms)}  ${error.text}`);
    setAttribute(cell, "title", error.text);
  }
}
