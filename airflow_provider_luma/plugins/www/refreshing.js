// SPDX-License-Identifier: Apache-2.0
// Load again while a run is active and the page is visible.

import { isRefusal } from "./airflow.js";

const INTERVAL = 4000;
const MAX_INTERVAL = 60000;
// A slow load leaves Airflow idle for this many times its duration before the next one.
const IDLE_FACTOR = 3;

export class Refresher {
  #load;
  #fail;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;
  /** @type {AbortController | undefined} */
  #abort;
  #failures = 0;
  #due = false;

  /**
   * @param {(signal: AbortSignal) => Promise<boolean>} load returns whether to load again
   * @param {(error: unknown) => void} fail is called for each failed load
   */
  constructor(load, fail) {
    this.#load = load;
    this.#fail = fail;
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden && this.#due) this.now();
    });
  }

  /** Load now, aborting a load in flight, and schedule the next load. */
  async now() {
    clearTimeout(this.#timer);
    this.#abort?.abort();
    const abort = (this.#abort = new AbortController());
    this.#due = false;
    const started = performance.now();
    let again;
    try {
      again = await this.#load(abort.signal);
      this.#failures = 0;
    } catch (error) {
      if (abort.signal.aborted) return;
      this.#failures += 1;
      this.#fail(error);
      again = !isRefusal(error);
    }
    if (abort.signal.aborted || !again) return;
    const delay = Math.max(INTERVAL * 2 ** this.#failures, IDLE_FACTOR * (performance.now() - started));
    this.#timer = setTimeout(() => {
      if (document.hidden) this.#due = true;
      else this.now();
    }, Math.min(delay, MAX_INTERVAL));
  }
}
