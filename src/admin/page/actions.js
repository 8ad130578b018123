// The dialogs: purge, reload and drain, each with what it would do before it does it, and the
// question for a token.

import { AnswerError, hasToken, setToken, write } from "./connection.js";
import { byId, element } from "./dom.js";
import { bytes, plural } from "./format.js";

const SCOPES = [
  {
    id: "stream",
    title: "Stream",
    hint: "The manifest that players start with. It and all that it lists is purged.",
    example: "http://live.example/live/a.m3u8",
  },
  {
    id: "url",
    title: "URL",
    hint: "One URL with its variants; for a playlist, all its versions.",
    example: "http://live.example/a/1.ts",
  },
  {
    id: "prefix",
    title: "Prefix",
    hint: "Every URL that begins with this one.",
    example: "http://live.example/a/",
  },
  {
    id: "tag",
    title: "Tag",
    hint: "Every object that its origin gave this tag.",
    example: "match-4711",
  },
  {
    id: "all",
    title: "Everything",
    hint: "All stored objects. The origin then gets a request for each that viewers want.",
  },
];

let mayOnlyRead = false;
let host = "this server";

/** Notes what the overview says of the server and, if it does, of the token's role. */
export function setContext(overview) {
  host = overview.host ?? host;
  if (overview.role) mayOnlyRead = overview.role === "read";
}

const dialog = () => byId("dialog");

function show(title, ...content) {
  const box = dialog();
  box.replaceChildren(element("h2", { id: "dialog-title" }, title), ...content.filter(Boolean));
  if (!box.open) box.showModal();
  box.querySelector("[autofocus], input:not([type=radio]), button")?.focus();
  return box;
}

export function closeDialog() {
  if (dialog().open) dialog().close();
}

const button = (text, kind, onclick) =>
  element("button", { type: "button", class: kind, onclick }, text);

const cancel = (text = "Cancel") => button(text, "plain", closeDialog);

const note = (kind, ...content) =>
  element(
    "div",
    { class: `note note-${kind}`, role: kind === "error" ? "alert" : "status" },
    ...content,
  );

const list = (texts) =>
  element("ul", { class: "note-list" }, ...texts.map((text) => element("li", {}, text)));

/** What went wrong, and how to mend it where the page can. */
function problem(error) {
  if (error instanceof AnswerError && error.status === 403) {
    mayOnlyRead = true;
    return readOnlyNote();
  }
  if (error instanceof AnswerError && error.status === 401) {
    return note(
      "error",
      element("p", {}, "The server wants a token. "),
      button("Enter a token…", "plain", () => askForToken(hasToken())),
    );
  }
  if (error instanceof AnswerError) {
    const problems = (error.body.problems ?? []).map((each) => each.text ?? each.message);
    if (problems.length > 0) {
      return note(
        "error",
        element("p", {}, "Nothing has changed. The file has problems:"),
        list(problems),
      );
    }
    return note("error", element("p", { class: "pre" }, error.message));
  }
  return note(
    "error",
    element(
      "p",
      {},
      "The server did not answer. Whether it did what was asked is not known: see the recent events.",
    ),
  );
}

function readOnlyNote() {
  return note(
    "error",
    element(
      "p",
      {},
      "This token may only read. Purge, reload and drain need a token with the role “write”.",
    ),
    button("Use another token…", "plain", () => askForToken(false, true)),
  );
}

/** Runs a write with its button disabled, and shows its result or problem in `result`. */
async function run(trigger, result, path, onDone) {
  trigger.disabled = true;
  result.replaceChildren(note("info", "…"));
  try {
    result.replaceChildren(...onDone(await write(path)));
  } catch (error) {
    result.replaceChildren(problem(error));
  } finally {
    trigger.disabled = false;
  }
}

export function openPurge(stream = null) {
  let scope = SCOPES[0];
  const input = element("input", {
    type: "text",
    id: "purge-value",
    autocomplete: "off",
    spellcheck: "false",
    "aria-describedby": "purge-hint",
    autofocus: true,
  });
  input.value = stream ?? "";
  const label = element("label", { for: "purge-value" });
  const hint = element("p", { id: "purge-hint", class: "quiet" });
  const soft = element("input", { type: "checkbox", id: "purge-soft" });
  const result = element("div", { class: "result", id: "purge-result" });
  const check = button("Check what would be purged", "primary", () => dryRun());
  const footer = element("div", { class: "buttons" }, cancel(), check);

  const parameters = () => {
    const query = new URLSearchParams();
    query.set(scope.id, scope.id === "all" ? "true" : input.value.trim());
    if (soft.checked) query.set("soft", "true");
    return query;
  };
  // What was checked no longer holds when the form changes.
  const invalidate = () => {
    result.replaceChildren();
    footer.replaceChildren(cancel(), check);
    check.disabled = scope.id !== "all" && input.value.trim() === "";
  };
  const choose = (chosen) => {
    scope = chosen;
    label.textContent = chosen.title;
    hint.textContent = chosen.hint;
    input.placeholder = chosen.example ?? "";
    input.hidden = label.hidden = chosen.id === "all";
    invalidate();
  };
  const dryRun = () => {
    const query = parameters();
    return run(check, result, `/purge?${query}&dry_run=true`, (answer) => {
      if (!(answer.objects > 0)) return [note("info", "Nothing is stored that this selects.")];
      confirmPurge(query, answer);
      return [purgeNote(answer, soft.checked)];
    });
  };
  const confirmPurge = (query, found) => {
    const verb = soft.checked ? "Make stale" : "Purge";
    const text = `${verb} ${plural(found.objects, "object")} (${bytes(found.bytes)})`;
    const confirm = button(text, "danger", () =>
      run(confirm, result, `/purge?${query}`, (answer) => {
        footer.replaceChildren(cancel("Close"));
        const done = soft.checked ? "are stale now" : "are purged";
        return [
          note("info", `${plural(answer.objects, "object")} (${bytes(answer.bytes)}) ${done}.`),
        ];
      }),
    );
    footer.replaceChildren(cancel(), confirm);
    confirm.focus();
  };
  input.addEventListener("input", invalidate);
  soft.addEventListener("change", invalidate);
  input.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !check.disabled && check.isConnected) dryRun();
  });

  show(
    "Purge",
    scopeChoice(choose),
    element("div", { class: "field" }, label, input, hint),
    element(
      "label",
      { class: "check" },
      soft,
      " Soft: make objects stale instead of removing them",
    ),
    result,
    mayOnlyRead ? readOnlyNote() : null,
    footer,
  );
  choose(scope);
  input.focus();
}

function scopeChoice(choose) {
  const options = SCOPES.map((each, index) => {
    const radio = element("input", {
      type: "radio",
      name: "scope",
      value: each.id,
      checked: index === 0,
      onchange: () => choose(each),
    });
    return element("label", {}, radio, element("span", {}, each.title));
  });
  return element(
    "fieldset",
    { class: "segments" },
    element("legend", {}, "What to purge"),
    ...options,
  );
}

function purgeNote(answer, isSoft) {
  const what = isSoft ? "would become stale" : "would be removed";
  const rest =
    answer.complete === false
      ? " Objects of the stream may remain: not all of its lists are known."
      : "";
  return note(
    "warning",
    element(
      "p",
      {},
      element("b", {}, `${plural(answer.objects, "object")}, ${bytes(answer.bytes)}`),
      ` ${what}. Viewers’ next requests for them go to the origin.${rest}`,
    ),
  );
}

export function openReload() {
  const result = element("div", { class: "result" });
  const reload = button("Reload", "primary", () =>
    run(reload, result, "/reload", (answer) => {
      footer.replaceChildren(cancel("Close"));
      return [reloadNote(answer)];
    }),
  );
  const footer = element("div", { class: "buttons" }, cancel(), reload);
  show(
    "Reload the configuration",
    element(
      "p",
      {},
      "Reads the file again and uses it. If it has a problem, nothing changes. Viewers are not interrupted.",
    ),
    result,
    mayOnlyRead ? readOnlyNote() : null,
    footer,
  );
}

function reloadNote(answer) {
  const changes = (answer.changes ?? []).map((change) => change.text ?? JSON.stringify(change));
  const warnings = (answer.warnings ?? []).map((warning) => warning.text ?? String(warning));
  const restart =
    answer.needs_restart > 0
      ? ` ${plural(answer.needs_restart, "change")} of these need a restart.`
      : "";
  return note(
    "info",
    element(
      "p",
      {},
      changes.length > 0
        ? `Generation ${answer.generation} is in use.${restart}`
        : "The file has no changes.",
    ),
    changes.length > 0 ? list(changes) : null,
    warnings.length > 0 ? list(warnings.map((text) => `Warning: ${text}`)) : null,
  );
}

export function openDrain() {
  const result = element("div", { class: "result" });
  const drain = button(`Drain ${host} and stop it`, "danger", () =>
    run(drain, result, "/drain", () => {
      footer.replaceChildren(cancel("Close"));
      return [
        note("info", "The drain has begun. This page loses its connection when the process stops."),
      ];
    }),
  );
  const footer = element("div", { class: "buttons" }, cancel(), drain);
  show(
    `Drain ${host}`,
    element(
      "p",
      {},
      "The server takes no new viewers, lets the responses in progress end, and stops. This cannot be undone: someone has to start it again.",
    ),
    result,
    mayOnlyRead ? readOnlyNote() : null,
    footer,
  );
}

/** Asks for a token; resolves when one is entered. */
export function askForToken(wasRefused, isForWrite = false) {
  return new Promise((resolve) => {
    const input = element("input", {
      type: "password",
      id: "token",
      autocomplete: "off",
      required: true,
      autofocus: true,
    });
    const text = isForWrite
      ? "A token with the role “write”."
      : "This server shows its state to those who have a token: see tokens of [admin] in its configuration. A token with the role “read” is enough to look.";
    const form = element(
      "form",
      { method: "dialog" },
      element("p", {}, text),
      wasRefused
        ? note("error", "The server refuses this token. Is it one of its own, and complete?")
        : null,
      element(
        "div",
        { class: "field" },
        element("label", { for: "token" }, "Token"),
        input,
        element("p", { class: "quiet" }, "Kept until this tab is closed."),
      ),
      element(
        "div",
        { class: "buttons" },
        element("button", { type: "submit", class: "primary" }, "Use the token"),
      ),
    );
    form.addEventListener("submit", () => {
      setToken(input.value.trim());
      mayOnlyRead = false;
      resolve();
    });
    const box = show("Token", form);
    input.focus();
    // Without a token the page has nothing to show, so Escape does not close the question.
    box.oncancel = isForWrite ? null : (event) => event.preventDefault();
    box.onclose = () => {
      box.oncancel = box.onclose = null;
    };
  });
}
