// SPDX-License-Identifier: Apache-2.0
// The videos of a Dag run, or of one of its tasks.

import { followOutside, isRefusal, outerDocument, runUrl, taskUrl } from "./airflow.js";
import { Card } from "./cards.js";
import { icon, make } from "./dom.js";
import { INSTANCES_PER_LOAD, RunCache, loadRun } from "./loading.js";
import { errorNotice, errorText, notice, skeleton } from "./notices.js";
import { ProgressBar, describe } from "./progress.js";
import { Refresher } from "./refreshing.js";
import { countStates } from "./videos.js";

/**
 * @import { LoadedRun, Scope } from "./loading.js"
 * @import { Counts, State, Video } from "./videos.js"
 *
 * @typedef {State | "all"} Filter
 */

/** @type {readonly [Filter, string][]} */
const FILTERS = [
  ["all", "All"],
  ["waiting", "Waiting"],
  ["completed", "Completed"],
  ["failed", "Failed"],
  ["unfinished", "Unfinished"],
];
const CARDS_PER_PAGE = 60;

/** @type {(page: HTMLElement, scope: Scope, runRoute: string) => void} */
export function showRun(page, scope, runRoute) {
  const cache = new RunCache();
  /** @type {Map<string, Card>} */
  const cards = new Map();
  /** @type {Video[]} */
  let videos = [];
  /** @type {Filter} */
  let filter = "all";
  let limit = CARDS_PER_PAGE;
  let instances = INSTANCES_PER_LOAD;
  let loaded = false;

  const progress = new ProgressBar();
  const summary = make("p", { class: "summary", role: "status" });
  const freshness = make("span", { class: "freshness" });
  const banner = make("p", { class: "banner", role: "alert", hidden: true });
  const truncatedNote = make(
    "p",
    { class: "note", hidden: true },
    "Some videos are missing: Airflow truncates long lists of ids. All of them appear when the task that waits " +
      "for them has ended.",
  );
  const unreadNote = make("p", { class: "note", role: "status", hidden: true });
  const loadMore = make("button", {
    type: "button",
    class: "more",
    hidden: true,
    click: () => {
      instances += INSTANCES_PER_LOAD;
      loadMore.disabled = true;
      refresher.now();
    },
  });
  const filters = makeFilters((chosen) => {
    filter = chosen;
    limit = CARDS_PER_PAGE;
    drawCards();
  });
  const list = make("ul", { class: "cards" });
  const more = make("button", {
    type: "button",
    class: "more",
    click: () => {
      const first = limit;
      limit += CARDS_PER_PAGE;
      drawCards();
      /** @type {HTMLElement | null | undefined} */ (list.children[first]?.querySelector("button, a, video"))?.focus();
    },
  });
  const emptyState = make("div");
  const refresher = new Refresher(load, showError);
  const refresh = make(
    "button",
    { type: "button", class: "quiet", title: "Refresh", "aria-label": "Refresh", click: () => refresher.now() },
    icon("refresh"),
  );
  const framed = outerDocument() !== null;
  const openInTab = make(
    "a",
    {
      href: location.href,
      target: "_blank",
      class: "quiet",
      title: "Open in a new tab",
      "aria-label": "Open in a new tab",
      click: followOutside,
    },
    icon("open"),
  );
  page.classList.toggle("standalone", !framed);
  const gallery = [
    framed ? make("h1", { class: "visually-hidden" }, "Luma videos") : titleOf(scope),
    make(
      "header",
      {},
      make("div", { class: "toolbar" }, summary, make("div", { class: "refreshing" }, freshness, refresh, framed ? openInTab : null)),
      progress.element,
      banner,
      truncatedNote,
      unreadNote,
      filters.element,
    ),
    make("h2", { class: "visually-hidden" }, "Videos"),
    emptyState,
    list,
    more,
    loadMore,
  ];

  /** @param {AbortSignal} signal */
  async function load(signal) {
    const result = await loadRun(scope, cache, signal, instances);
    if (signal.aborted) return false;
    if (!loaded) page.replaceChildren(...gallery);
    loaded = true;
    page.removeAttribute("aria-busy");
    banner.hidden = true;
    videos = result.videos;
    draw(result);
    return result.active;
  }

  /** @param {unknown} error */
  function showError(error) {
    loadMore.disabled = false;
    if (loaded && !isRefusal(error)) {
      banner.textContent = `${errorText(error)}. The videos may be out of date; retrying.`;
      banner.hidden = false;
      return;
    }
    loaded = false;
    page.removeAttribute("aria-busy");
    page.replaceChildren(errorNotice(error, () => refresher.now()));
  }

  /** @param {LoadedRun} loaded */
  function draw({ run, active, truncated, unread }) {
    page.dataset.active = String(active);
    const counts = countStates(videos);
    setText(summary, describe(counts));
    truncatedNote.hidden = !truncated;
    drawUnread(unread);
    progress.update(counts);
    filters.update(counts);
    const at = new Date().toLocaleTimeString();
    freshness.replaceChildren(
      active ? make("span", { class: "pulse", "aria-hidden": "true" }) : "",
      active ? `Refreshing automatically · ${at}` : `Dag run: ${run.state} · ${at}`,
    );
    const empty = !videos.length;
    page.classList.toggle("empty", empty);
    emptyState.replaceChildren(...(empty ? [emptyNotice(active)] : []));
    drawCards();
  }

  /** @param {LoadedRun["unread"]} unread */
  function drawUnread(unread) {
    unreadNote.hidden = loadMore.hidden = unread === null;
    loadMore.disabled = false;
    if (unread === null) return;
    const [read, total] = [unread.read, unread.total].map((count) => count.toLocaleString());
    setText(unreadNote, `Some videos are not shown yet: ${read} of ${total} task instances were read.`);
    loadMore.textContent = `Load more (${read} of ${total} read)`;
  }

  /** @param {boolean} active */
  function emptyNotice(active) {
    if (scope.taskId !== null) {
      const url = runUrl(scope.dagId, scope.runId, `plugin/${runRoute}`);
      const link = make("a", { href: url, click: followOutside }, "All videos of this Dag run");
      return notice("video", `No videos in this task instance${active ? " yet" : ""}`, make("p", {}, link));
    }
    return active
      ? notice("video", "No videos in this Dag run yet", "They appear when a task submits or waits for them.")
      : notice("video", "No videos in this Dag run");
  }

  function drawCards() {
    const chosen = videos.filter((video) => filter === "all" || video.state === filter);
    const wanted = chosen.slice(0, limit).map((video) => cardOf(video).element);
    arrange(list, wanted);
    more.hidden = chosen.length <= limit;
    more.textContent = `Show more (${chosen.length - wanted.length} left)`;
    list.setAttribute("aria-label", `${chosen.length} videos`);
  }

  /**
   * Return a video's card, created when it is first shown because cards are expensive for the browser.
   *
   * @param {Video} video
   */
  function cardOf(video) {
    const card = cards.get(video.key) ?? new Card(video, scope);
    cards.set(video.key, card);
    card.update(video);
    return card;
  }

  page.replaceChildren(
    make("p", { class: "visually-hidden", role: "status" }, "Loading videos"),
    skeleton(6),
  );
  refresher.now();
}

/**
 * Set a text only if it differs, because screen readers announce every change.
 *
 * @param {HTMLElement} element
 * @param {string} text
 */
function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** @param {Scope} scope */
function titleOf({ dagId, runId, taskId, mapIndex }) {
  const url = taskId === null ? runUrl(dagId, runId) : taskUrl(dagId, runId, taskId, mapIndex ?? -1);
  const name = taskId === null ? dagId : `${dagId} · ${taskId}`;
  return make("h1", {}, make("a", { href: url }, name), make("small", {}, runId));
}

/**
 * Make the elements the list's children, moving only those in the wrong place, because a moved video stops.
 *
 * @param {HTMLElement} list
 * @param {readonly Element[]} wanted
 */
function arrange(list, wanted) {
  const keep = new Set(wanted);
  for (const child of [...list.children]) if (!keep.has(child)) child.remove();
  wanted.forEach((element, number) => {
    if (list.children[number] !== element) list.insertBefore(element, list.children[number] ?? null);
  });
}

/** @param {(state: Filter) => void} choose */
function makeFilters(choose) {
  const options = FILTERS.map(([state, label]) => {
    const count = make("span", { class: "count" });
    const input = make("input", { type: "radio", name: "state", value: state, change: () => choose(state) });
    input.checked = state === "all";
    return { state, input, count, element: make("label", {}, input, make("span", {}, label, " ", count)) };
  });
  return {
    element: make(
      "fieldset",
      { class: "filters" },
      make("legend", { class: "visually-hidden" }, "Show videos by state"),
      ...options.map(({ element }) => element),
    ),
    /** @param {Counts} counts */
    update(counts) {
      for (const { state, input, count, element } of options) {
        count.textContent = String(counts[state]);
        // Most runs have no unfinished videos, so the filter would only confuse.
        element.hidden = state === "unfinished" && !counts[state] && !input.checked;
      }
    },
  };
}
