// SPDX-License-Identifier: Apache-2.0
// The runs that had to do with Luma lately.

import { followOutside, runAddress } from "./airflow.js";
import { source } from "./cards.js";
import { icon, make, moment, span } from "./dom.js";
import { findRecentRuns, loadRun } from "./loading.js";
import { errorNotice, notice, skeleton } from "./notices.js";
import { ProgressBar, describe } from "./progress.js";
import { Refresher } from "./refreshing.js";
import { countStates } from "./videos.js";

const RUNS_AT_ONCE = 10;
const PICTURES = 4;
const PORTION_OF_A_ROW = 10;

export function showRecent(page, runRoute) {
  const rows = new Map();
  const dags = new Map();
  let limit = RUNS_AT_ONCE;
  let loaded = false;

  const list = make("ul", { class: "runs" });
  const nothing = make("div");
  const trouble = make("p", { class: "trouble", role: "alert", hidden: true });
  const cutNote = make(
    "p",
    { class: "note", hidden: true },
    "There may be older runs than these: only the latest results in Airflow were looked at.",
  );
  const more = make(
    "button",
    {
      type: "button",
      class: "more",
      click: () => {
        limit += RUNS_AT_ONCE;
        refresher.now();
      },
    },
    "Show more",
  );
  const refresher = new Refresher(load, showError);

  async function load(signal) {
    const { runs, cut } = await findRecentRuns(dags, signal);
    const shown = runs.slice(0, limit);
    for (const { dagId, runId } of shown) {
      const key = JSON.stringify([dagId, runId]);
      if (!rows.has(key)) rows.set(key, new Row(dagId, runId, runRoute));
    }
    const wanted = shown.map(({ dagId, runId }) => rows.get(JSON.stringify([dagId, runId])));
    await Promise.all(wanted.map((row) => row.load(signal)));
    if (signal.aborted) return false;
    if (!loaded) {
      page.replaceChildren(make("h1", {}, "Luma videos"), trouble, nothing, list, more, cutNote);
      page.removeAttribute("aria-busy");
    }
    loaded = true;
    trouble.hidden = true;
    list.replaceChildren(...wanted.filter((row) => row.visible).map((row) => row.element));
    nothing.replaceChildren(...(list.children.length ? [] : [emptyNotice()]));
    more.hidden = runs.length <= limit;
    cutNote.hidden = !cut || !more.hidden;
    const active = wanted.some((row) => row.active);
    page.dataset.active = String(active);
    return active;
  }

  function showError(error) {
    if (loaded && !(error.status >= 400 && error.status < 500)) {
      trouble.textContent = `${error.message}. What stands here may be old; trying again.`;
      trouble.hidden = false;
      return;
    }
    loaded = false;
    page.removeAttribute("aria-busy");
    page.replaceChildren(errorNotice(error, () => refresher.now()));
  }

  page.classList.add("recent");
  page.replaceChildren(
    make("h1", {}, "Luma videos"),
    make("p", { class: "unseen", role: "status" }, "Loading recent runs"),
    skeleton(3),
  );
  refresher.now();
}

function emptyNotice() {
  return notice(
    "film",
    "No Luma runs in the last 30 days",
    "Runs of Dags with Luma tasks appear here, newest first.",
  );
}

class Row {
  #dagId;
  #runId;
  #cache = new Map();
  #over = false;
  #progress = new ProgressBar("Finished videos");
  #state = make("span", { class: "badge" });
  #when = make("span", { class: "when" });
  #summary = make("span", { class: "counts" });
  #pictures = make("span", { class: "pictures" });
  #signature = "";

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
        { class: "about" },
        make(
          "h2",
          {},
          make("a", { href: runAddress(dagId, runId, `plugin/${runRoute}`), click: followOutside }, dagId),
        ),
        make("p", {}, this.#state, this.#when),
        make("p", { class: "run-id", title: runId }, runId),
      ),
      make("div", { class: "standing-of-run" }, this.#summary, this.#progress.element),
      this.#pictures,
    );
  }

  async load(signal) {
    // A run that is over changes only when somebody clears it, and then it is no longer over.
    if (this.#over) return;
    let result;
    try {
      result = await loadRun(
        { dagId: this.#dagId, runId: this.#runId, taskId: null, mapIndex: null },
        this.#cache,
        signal,
        PORTION_OF_A_ROW,
      );
    } catch (error) {
      // Deleted since it was found, or out of the viewer's reach.
      if (error.status !== 403 && error.status !== 404) throw error;
      this.visible = this.active = false;
      return;
    }
    this.#over = !result.active;
    this.active = result.active;
    this.visible = result.videos.length > 0;
    this.#draw(result);
  }

  #draw({ run, videos, left }) {
    const counts = countStates(videos);
    const started = Date.parse(run.start_date ?? run.run_after);
    this.element.dataset.state = run.state;
    this.#state.replaceChildren(icon(RUN_ICONS[run.state] ?? "clock"), RUN_STATES[run.state] ?? run.state);
    this.#when.replaceChildren(moment(started, `${span(Date.now() - started)} ago`));
    const read = left && ` (${left.read.toLocaleString()} of ${left.total.toLocaleString()} task instances read)`;
    this.#summary.textContent = describe(counts) + (read ?? "");
    this.#progress.update(counts);
    const pictures = videos.map((video) => video.links?.thumbnail).filter(Boolean);
    const signature = JSON.stringify(pictures);
    if (signature === this.#signature) return;
    this.#signature = signature;
    this.#pictures.replaceChildren(
      ...pictures.slice(0, PICTURES).map((link) =>
        make("img", {
          ...source(link),
          alt: "",
          loading: "lazy",
          referrerpolicy: "no-referrer",
          error: (event) => event.currentTarget.replaceWith(make("span", { class: "gone" }, icon("film"))),
        }),
      ),
    );
  }
}

const RUN_ICONS = { success: "check", failed: "cross" };
const RUN_STATES = { queued: "Queued", running: "Running", success: "Success", failed: "Failed" };
