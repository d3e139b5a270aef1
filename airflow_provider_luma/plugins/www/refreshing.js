// SPDX-License-Identifier: Apache-2.0
// Load again and again while there is something to see, and only while somebody looks.

const INTERVAL = 4000;
// Passing trouble is waited out, ever more patiently.
const LONGEST_INTERVAL = 60000;
// A load that takes long is not begun again before Airflow had some rest from it.
const REST = 3;

/**
 * load: async (signal) => whether to load again
 * fail: (error) => what to show; it is called once per failed load
 */
export class Refresher {
  #load;
  #fail;
  #timer = null;
  #abort = null;
  #failures = 0;
  #due = false;

  constructor(load, fail) {
    this.#load = load;
    this.#fail = fail;
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden && this.#due) this.now();
    });
  }

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
      // Asking again changes nothing about a refusal.
      again = !(error.status >= 400 && error.status < 500);
    }
    if (abort.signal.aborted || !again) return;
    const rest = Math.max(INTERVAL * 2 ** this.#failures, REST * (performance.now() - started));
    const wait = Math.min(rest, LONGEST_INTERVAL);
    this.#timer = setTimeout(() => {
      if (document.hidden) this.#due = true;
      else this.now();
    }, wait);
  }
}
