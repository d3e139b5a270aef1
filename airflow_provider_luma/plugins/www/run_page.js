// SPDX-License-Identifier: Apache-2.0
// The videos of a Dag run, or of one of its tasks.

import { followOutside, outerDocument, runAddress, taskAddress } from "./airflow.js";
import { Card } from "./cards.js";
import { icon, make } from "./dom.js";
import { PORTION, loadRun } from "./loading.js";
import { errorNotice, notice, skeleton } from "./notices.js";
import { ProgressBar, describe } from "./progress.js";
import { Refresher } from "./refreshing.js";
import { countStates } from "./videos.js";

const FILTERS = [
  ["all", "All"],
  ["waiting", "Waiting"],
  ["completed", "Completed"],
  ["failed", "Failed"],
  ["unfinished", "Unfinished"],
];
const CARDS_AT_ONCE = 60;

export function showRun(page, scope, runRoute) {
  const cache = new Map();
  const cards = new Map();
  let videos = [];
  let filter = "all";
  let limit = CARDS_AT_ONCE;
  let portion = PORTION;
  let loaded = false;

  const progress = new ProgressBar("Finished videos");
  const summary = make("p", { class: "summary", role: "status" });
  const freshness = make("span", { class: "freshness" });
  const trouble = make("p", { class: "trouble", role: "alert", hidden: true });
  const cutNote = make(
    "p",
    { class: "note", hidden: true },
    "There are more videos than these: Airflow cuts long lists of ids. All of them appear when the task that " +
      "waits for them has ended.",
  );
  const leftNote = make("p", { class: "note left", role: "status", hidden: true });
  const loadMore = make("button", {
    type: "button",
    class: "more",
    hidden: true,
    click: () => {
      portion += PORTION;
      loadMore.disabled = true;
      refresher.now();
    },
  });
  const filters = makeFilters((chosen) => {
    filter = chosen;
    limit = CARDS_AT_ONCE;
    drawCards();
  });
  const list = make("ul", { class: "cards" });
  const more = make("button", {
    type: "button",
    class: "more",
    click: () => {
      const first = limit;
      limit += CARDS_AT_ONCE;
      drawCards();
      list.children[first]?.querySelector("button, a, video")?.focus();
    },
  });
  const nothing = make("div");
  const refresher = new Refresher(load, showError);
  const refresh = make(
    "button",
    { type: "button", class: "quiet", title: "Refresh", "aria-label": "Refresh", click: () => refresher.now() },
    icon("refresh"),
  );
  const framed = outerDocument() !== null;
  const alone = make(
    "a",
    {
      href: location.href,
      target: "_blank",
      class: "quiet",
      title: "Open in a page of its own",
      "aria-label": "Open in a page of its own",
      click: followOutside,
    },
    icon("open"),
  );
  page.classList.toggle("alone", !framed);
  const gallery = [
    framed ? make("h1", { class: "unseen" }, "Luma videos") : titleOf(scope),
    make(
      "header",
      {},
      make("div", { class: "standing" }, summary, make("div", { class: "refreshing" }, freshness, refresh, framed ? alone : null)),
      progress.element,
      trouble,
      cutNote,
      leftNote,
      filters.element,
    ),
    make("h2", { class: "unseen" }, "Videos"),
    nothing,
    list,
    more,
    loadMore,
  ];

  async function load(signal) {
    const result = await loadRun(scope, cache, signal, portion);
    if (signal.aborted) return false;
    if (!loaded) page.replaceChildren(...gallery);
    loaded = true;
    page.removeAttribute("aria-busy");
    trouble.hidden = true;
    videos = result.videos;
    draw(result);
    return result.active;
  }

  function showError(error) {
    loadMore.disabled = false;
    if (loaded && !(error.status >= 400 && error.status < 500)) {
      trouble.textContent = `${error.message}. What stands here may be old; trying again.`;
      trouble.hidden = false;
      return;
    }
    loaded = false;
    page.removeAttribute("aria-busy");
    page.replaceChildren(errorNotice(error, () => refresher.now()));
  }

  function draw({ run, active, cut, left }) {
    page.dataset.active = String(active);
    const counts = countStates(videos);
    const words = describe(counts);
    // Said aloud only when it changes.
    if (summary.textContent !== words) summary.textContent = words;
    cutNote.hidden = !cut;
    drawLeft(left);
    progress.update(counts);
    filters.update(counts);
    const at = new Date().toLocaleTimeString();
    freshness.replaceChildren(
      active ? make("span", { class: "pulse", "aria-hidden": "true" }) : "",
      active ? `Refreshes itself · ${at}` : `Run ${run.state} · ${at}`,
    );
    const empty = !videos.length;
    page.classList.toggle("empty", empty);
    nothing.replaceChildren(...(empty ? [emptyNotice(active)] : []));
    drawCards();
  }

  function drawLeft(left) {
    leftNote.hidden = loadMore.hidden = left === null;
    loadMore.disabled = false;
    if (left === null) return;
    const [read, total] = [left.read, left.total].map((count) => count.toLocaleString());
    const words = `Not all of it is shown: read so far are ${read} of ${total} task instances.`;
    if (leftNote.textContent !== words) leftNote.textContent = words;
    loadMore.textContent = `Load more (${read} of ${total} read)`;
  }

  function emptyNotice(active) {
    if (scope.taskId !== null) {
      const address = runAddress(scope.dagId, scope.runId, `plugin/${runRoute}`);
      const link = make("a", { href: address, click: followOutside }, "All videos of this run");
      return notice(
        "film",
        "No videos here",
        active ? "This task has not had to do with Luma videos so far." : "This task had to do with no Luma videos.",
        make("p", {}, link),
      );
    }
    return active
      ? notice("film", "No videos yet", "They appear here as soon as a task of this run submits or awaits them.")
      : notice("film", "No videos here", "This run had to do with no Luma videos.");
  }

  function drawCards() {
    const chosen = videos.filter((video) => filter === "all" || video.state === filter);
    const wanted = chosen.slice(0, limit).map((video) => cardOf(video).element);
    arrange(list, wanted);
    more.hidden = chosen.length <= limit;
    more.textContent = `Show more (${chosen.length - wanted.length} left)`;
    list.setAttribute("aria-label", `${chosen.length} videos`);
  }

  /** A card costs the browser some: only those that are shown are made. */
  function cardOf(video) {
    const card = cards.get(video.key) ?? new Card(video, scope);
    cards.set(video.key, card);
    card.update(video);
    return card;
  }

  page.replaceChildren(
    make("p", { class: "unseen", role: "status" }, "Loading the videos"),
    skeleton(6),
  );
  refresher.now();
}

function titleOf({ dagId, runId, taskId, mapIndex }) {
  const address = taskId === null ? runAddress(dagId, runId) : taskAddress(dagId, runId, taskId, mapIndex ?? -1);
  const name = taskId === null ? dagId : `${dagId} · ${taskId}`;
  return make("h1", {}, make("a", { href: address }, name), make("small", {}, runId));
}

/** Make these the list's children, moving only what stands wrong: a moved film would stop. */
function arrange(list, wanted) {
  const keep = new Set(wanted);
  for (const child of [...list.children]) if (!keep.has(child)) child.remove();
  wanted.forEach((element, number) => {
    if (list.children[number] !== element) list.insertBefore(element, list.children[number] ?? null);
  });
}

function makeFilters(choose) {
  const counts = {};
  const options = FILTERS.map(([state, label]) => {
    const count = (counts[state] = make("span", { class: "count" }));
    const input = make("input", { type: "radio", name: "state", value: state, change: () => choose(state) });
    input.checked = state === "all";
    return { state, input, element: make("label", {}, input, make("span", {}, label, " ", count)) };
  });
  return {
    element: make(
      "fieldset",
      { class: "filters" },
      make("legend", { class: "unseen" }, "Show videos by state"),
      ...options.map(({ element }) => element),
    ),
    update(numbers) {
      for (const { state, input, element } of options) {
        counts[state].textContent = String(numbers[state]);
        // A state that never came up would only raise questions.
        element.hidden = state === "unfinished" && !numbers[state] && !input.checked;
      }
    },
  };
}
