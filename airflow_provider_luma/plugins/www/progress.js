// SPDX-License-Identifier: Apache-2.0
// The bar over all videos, and the same in words.

import { make, plural } from "./dom.js";

const ORDER = ["completed", "failed", "unfinished", "waiting"];

export function describe(counts) {
  const parts = [`${counts.completed} of ${plural(counts.all, "video")} completed`];
  if (counts.failed) parts.push(`${counts.failed} failed`);
  if (counts.unfinished) parts.push(`${counts.unfinished} unfinished`);
  if (counts.waiting) parts.push(`${counts.waiting} waiting`);
  return parts.join(", ");
}

export class ProgressBar {
  #pieces = ORDER.map((state) => make("span", { class: `piece ${state}` }));

  constructor(label) {
    this.element = make(
      "div",
      { class: "progress", role: "progressbar", "aria-label": label, "aria-valuemin": "0" },
      ...this.#pieces,
    );
  }

  update(counts) {
    this.element.setAttribute("aria-valuemax", String(counts.all));
    this.element.setAttribute("aria-valuenow", String(counts.all - counts.waiting));
    this.element.setAttribute("aria-valuetext", describe(counts));
    ORDER.forEach((state, number) => {
      this.#pieces[number].style.flexGrow = String(counts[state]);
      this.#pieces[number].hidden = counts[state] === 0;
    });
  }
}
