// SPDX-License-Identifier: Apache-2.0
// The page of recent runs with Luma videos.

import { ApiError, followOutside, isRefusal, runUrl } from "./airflow.js";
import { source } from "./cards.js";
import { formatDuration, icon, make, makeTime } from "./dom.js";
import { RunCache, loadRun } from "./loading.js";
import { errorNotice, errorText, notice, skeleton } from "./notices.js";
import { ProgressBar, describe } from "./progress.js";
import { findRecentRuns } from "./recent_runs.js";
import { Refresher } from "./refreshing.js";
import { countStates } from "./videos.js";

/** @import { LoadedRun } from "./loading.js" */

const RUNS_PER_PAGE = 10;
const MAX_THUMBNAILS = 4;
const INSTANCES_PER_ROW = 10;

/** @type {(page: HTMLElement, runRoute: string) => void} */
export function showRecent(page, runRoute) {
  /** @type {Map<string, Row>} */
  const rows = new Map();
  /** @type {Map<string, boolean>} */
  const dags = new Map();
  let limit = RUNS_PER_PAGE;
  let loaded = false;

  const list = make("ul", { class: "runs" });
  const emptyState = make("div");
  const banner = make("p", { class: "banner", role: "alert", hidden: true });
  const truncatedNote = make(
    "p",
    { class: "note", hidden: true },
    "Older Dag runs may be missing: only the latest XComs were read.",
  );
  const more = make(
    "button",
    {
      type: "button",
      class: "more",
      click: () => {
        limit += RUNS_PER_PAGE;
        refresher.now();
      },
    },
    "Show more",
  );
  const refresher = new Refresher(load, showError);

  /** @param {AbortSignal} signal */
  async function load(signal) {
    const { runs, truncated } = await findRecentRuns(dags, signal);
    const shown = runs.slice(0, limit);
    const wanted = shown.map(({ dagId, runId }) => {
      const key = JSON.stringify([dagId, runId]);
      const row = rows.get(key) ?? new Row(dagId, runId, runRoute);
      rows.set(key, row);
      return row;
    });
    await Promise.all(wanted.map((row) => row.load(signal)));
    if (signal.aborted) return false;
    if (!loaded) {
      page.replaceChildren(make("h1", {}, "Luma videos"), banner, emptyState, list, more, truncatedNote);
      page.removeAttribute("aria-busy");
    }
    loaded = true;
    banner.hidden = true;
    list.replaceChildren(...wanted.filter((row) => row.visible).map((row) => row.element));
    emptyState.replaceChildren(...(list.children.length ? [] : [emptyNotice()]));
    more.hidden = runs.length <= limit;
    truncatedNote.hidden = !truncated || !more.hidden;
    const active = wanted.some((row) => row.active);
    page.dataset.active = String(active);
    return active;
  }

  /** @param {unknown} error */
  function showError(error) {
    if (loaded && !isRefusal(error)) {
      banner.textContent = `${errorText(error)}. The list may be out of date; retrying.`;
      banner.hidden = false;
      return;
    }
    loaded = false;
    page.removeAttribute("aria-busy");
    page.replaceChildren(errorNotice(error, () => refresher.now()));
  }

  page.classList.add("recent");
  page.replaceChildren(
    make("h1", {}, "Luma videos"),
    make("p", { class: "visually-hidden", role: "status" }, "Loading recent Dag runs"),
    skeleton(3),
  );
  refresher.now();
}

function emptyNotice() {
  return notice(
    "video",
    "No Dag runs with Luma videos in the last 30 days",
    "Dag runs with Luma videos appear here, newest first.",
  );
}

class Row {
  #dagId;
  #runId;
  #cache = new RunCache();
  #ended = false;
  #progress = new ProgressBar();
  #state = make("span", { class: "badge" });
  #when = make("span", { class: "when" });
  #summary = make("span", { class: "counts" });
  #thumbnails = make("span", { class: "thumbnails" });
  #signature = "";

  /**
   * @param {string} dagId
   * @param {string} runId
   * @param {string} runRoute
   */
  constructor(dagId, runId, runRoute) {
    this.#dagId = dagId;
    this.#runId = runId;
    this.visible = false;
    this.active = true;
    this.element = make(
      "li",
      { class: "run" },
      make(
        "div",
        {},
        make(
          "h2",
          {},
          make("a", { href: runUrl(dagId, runId, `plugin/${runRoute}`), click: followOutside }, dagId),
        ),
        make("p", {}, this.#state, this.#when),
        make("p", { class: "run-id", title: runId }, runId),
      ),
      make("div", {}, this.#summary, this.#progress.element),
      this.#thumbnails,
    );
  }

  /** @param {AbortSignal} signal */
  async load(signal) {
    // An ended run changes only if its tasks are cleared, which a reload of the page shows.
    if (this.#ended) return;
    let result;
    try {
      result = await loadRun(
        { dagId: this.#dagId, runId: this.#runId, taskId: null, mapIndex: null },
        this.#cache,
        signal,
        INSTANCES_PER_ROW,
      );
    } catch (error) {
      // The run was deleted since it was found, or the user may not read it.
      if (!(error instanceof ApiError) || (error.status !== 403 && error.status !== 404)) throw error;
      this.visible = this.active = false;
      return;
    }
    this.#ended = !result.active;
    this.active = result.active;
    this.visible = result.videos.length > 0;
    this.#draw(result);
  }

  /** @param {LoadedRun} loaded */
  #draw({ run, videos, unread }) {
    const counts = countStates(videos);
    const started = Date.parse(run.start_date ?? run.run_after);
    this.element.dataset.state = run.state;
    this.#state.replaceChildren(icon(RUN_ICONS[run.state] ?? "clock"), RUN_STATES[run.state] ?? run.state);
    this.#when.replaceChildren(makeTime(started, `${formatDuration(Date.now() - started)} ago`));
    const read = unread && [unread.read, unread.total].map((count) => count.toLocaleString()).join(" of ");
    this.#summary.textContent = describe(counts) + (read ? ` (${read} task instances read)` : "");
    this.#progress.update(counts);
    const urls = videos.flatMap((video) => video.urls?.thumbnail ?? []);
    const signature = JSON.stringify(urls);
    if (signature === this.#signature) return;
    this.#signature = signature;
    this.#thumbnails.replaceChildren(
      ...urls.slice(0, MAX_THUMBNAILS).map((url) =>
        make("img", {
          ...source(url),
          alt: "",
          loading: "lazy",
          referrerpolicy: "no-referrer",
          error: (/** @type {any} */ event) => event.currentTarget.replaceWith(make("span", { class: "missing" }, icon("video"))),
        }),
      ),
    );
  }
}

/** @type {Record<string, Parameters<typeof icon>[0]>} */
const RUN_ICONS = { success: "check", failed: "cross" };
/** @type {Record<string, string>} */
const RUN_STATES = { queued: "Queued", running: "Running", success: "Success", failed: "Failed" };
