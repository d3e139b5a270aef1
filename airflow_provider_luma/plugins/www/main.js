// SPDX-License-Identifier: Apache-2.0
// Choose the page by the address: Airflow writes Dag, run and task into it.

import { wearTheme } from "./airflow.js";
import { showRecent } from "./recent_page.js";
import { showRun } from "./run_page.js";

const RUN_ROUTE = "luma-run";

/**
 * A parameter of the address, or null where Airflow had nothing to fill in.
 *
 * Airflow 3.1 fills in without escaping, so a plus is a plus here, and a lone percent sign itself.
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

wearTheme();
const page = document.querySelector("#page");
const [dagId, runId, taskId] = ["dag_id", "run_id", "task_id"].map(parameter);
const mapIndex = Number.parseInt(parameter("map_index") ?? "", 10);
if (dagId !== null && runId !== null) {
  showRun(page, { dagId, runId, taskId, mapIndex: mapIndex >= 0 ? mapIndex : null }, RUN_ROUTE);
} else {
  showRecent(page, RUN_ROUTE);
}
