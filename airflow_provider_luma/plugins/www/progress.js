// SPDX-License-Identifier: Apache-2.0
// The progress of all videos, as a bar and in words.

import { make, plural } from "./dom.js";

/** @import { Counts, State } from "./videos.js" */

/** @type {readonly State[]} */
const ORDER = ["completed", "failed", "unfinished", "waiting"];

/** @param {Counts} counts */
export function describe(counts) {
  const parts = [`${counts.completed} of ${plural(counts.all, "video")} completed`];
  if (counts.failed) parts.push(`${counts.failed} failed`);
  if (counts.unfinished) parts.push(`${counts.unfinished} unfinished`);
  if (counts.waiting) parts.push(`${counts.waiting} waiting`);
  return parts.join(", ");
}

export class ProgressBar {
  #pieces = ORDER.map((state) => ({ state, element: make("span", { class: `piece ${state}` }) }));
  element = make(
    "div",
    { class: "progress", role: "progressbar", "aria-label": "Progress of the videos", "aria-valuemin": "0" },
    ...this.#pieces.map(({ element }) => element),
  );

  /** @param {Counts} counts */
  update(counts) {
    this.element.setAttribute("aria-valuemax", String(counts.all));
    this.element.setAttribute("aria-valuenow", String(counts.all - counts.waiting));
    this.element.setAttribute("aria-valuetext", describe(counts));
    for (const { state, element } of this.#pieces) {
      element.style.flexGrow = String(counts[state]);
      element.hidden = counts[state] === 0;
    }
  }
}
