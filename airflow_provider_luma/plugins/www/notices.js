// SPDX-License-Identifier: Apache-2.0
// What stands in the page when there is nothing to show, or no way to.

import { followOutside, homeAddress } from "./airflow.js";
import { icon, make } from "./dom.js";

export function notice(name, title, ...lines) {
  return make(
    "section",
    { class: "notice" },
    icon(name),
    make("h2", {}, title),
    ...lines.map((line) => (typeof line === "string" ? make("p", {}, line) : line)),
  );
}

/** What an error of the API means to the viewer; retry is called by the button that it may have. */
export function errorNotice(error, retry) {
  const again = make("p", {}, make("button", { type: "button", click: retry }, icon("refresh"), "Try again"));
  switch (error.status) {
    case 0:
      return notice("alert", "Airflow can't be reached", "Its API server doesn't answer.", again);
    case 401:
      return notice(
        "alert",
        "You are signed out",
        make("p", {}, make("a", { href: homeAddress, click: followOutside }, "Sign in to Airflow"), " to see this."),
      );
    case 403:
      return notice("alert", "You may not see this", "Airflow doesn't let you read the XComs of this Dag.");
    case 404:
      return notice("film", "There is no such run", "It may have been deleted.", again);
    default:
      return notice("alert", "Airflow can't show this", error.message || `Its API answered ${error.status}.`, again);
  }
}

/** Grey shapes in place of what is being loaded. */
export function skeleton(count) {
  return make(
    "div",
    { class: "cards", "aria-hidden": "true" },
    ...Array.from({ length: count }, () =>
      make("div", { class: "card ghost" }, make("div", { class: "media" }), make("div", { class: "body" })),
    ),
  );
}
