// SPDX-License-Identifier: Apache-2.0
// What the page shows instead of videos: errors, empty states and placeholders.

import { ApiError, followOutside, homeUrl } from "./airflow.js";
import { icon, make } from "./dom.js";

/** @type {(name: Parameters<typeof icon>[0], title: string, ...lines: (string | Node)[]) => HTMLElement} */
export function notice(name, title, ...lines) {
  return make(
    "section",
    { class: "notice" },
    icon(name),
    make("h2", {}, title),
    ...lines.map((line) => (typeof line === "string" ? make("p", {}, line) : line)),
  );
}

/**
 * Explain an error of the API to the user.
 *
 * @param {unknown} error
 * @param {() => void} retry is called by the button, if there is one
 */
export function errorNotice(error, retry) {
  const again = make("p", {}, make("button", { type: "button", click: retry }, icon("refresh"), "Try again"));
  switch (error instanceof ApiError ? error.status : undefined) {
    case 0:
      return notice("alert", "Airflow can't be reached", "The API server does not respond.", again);
    case 401:
      return notice(
        "alert",
        "You are signed out",
        make("p", {}, make("a", { href: homeUrl, click: followOutside }, "Sign in to Airflow"), " to see the videos."),
      );
    case 403:
      return notice("alert", "Permission denied", "You are not allowed to read the XComs of this Dag.");
    case 404:
      return notice("video", "Dag run not found", "It may have been deleted.", again);
    default:
      return notice("alert", "Airflow returned an error", errorText(error), again);
  }
}

/** @param {unknown} error */
export function errorText(error) {
  const status = error instanceof ApiError ? `HTTP ${error.status}` : "Unexpected error";
  return (error instanceof Error && error.message) || status;
}

/**
 * Create grey placeholders for the cards that are being loaded.
 *
 * @param {number} count
 */
export function skeleton(count) {
  return make(
    "div",
    { class: "cards", "aria-hidden": "true" },
    ...Array.from({ length: count }, () =>
      make("div", { class: "card ghost" }, make("div", { class: "media" }), make("div", { class: "body" })),
    ),
  );
}
