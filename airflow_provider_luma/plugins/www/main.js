// SPDX-License-Identifier: Apache-2.0
// Choose the page by the URL, into which Airflow writes Dag, run and task.

import { adoptTheme } from "./airflow.js";
import { showRecent } from "./recent_page.js";
import { showRun } from "./run_page.js";

const RUN_ROUTE = "luma-run";

/**
 * Return a parameter of the URL, or null if Airflow had no value for it.
 *
 * Airflow 3.1 doesn't escape the values, so a plus sign and a lone percent sign stand for themselves.
 *
 * @param {string} name
 */
function parameter(name) {
  for (const pair of location.search.slice(1).split("&")) {
    const [key, ...rest] = pair.split("=");
    if (key !== name) continue;
    const value = rest.join("=");
    if (!value || value.startsWith("{") || value.startsWith("%7B")) return null;
    try {
      return decodeURIComponent(value);
    } catch {
      return value;
    }
  }
  return null;
}

adoptTheme();
const page = /** @type {HTMLElement} */ (document.querySelector("#page"));
const [dagId, runId, taskId] = [parameter("dag_id"), parameter("run_id"), parameter("task_id")];
const mapIndex = Number.parseInt(parameter("map_index") ?? "", 10);
if (dagId !== null && runId !== null) {
  showRun(page, { dagId, runId, taskId, mapIndex: mapIndex >= 0 ? mapIndex : null }, RUN_ROUTE);
} else {
  showRecent(page, RUN_ROUTE);
}
