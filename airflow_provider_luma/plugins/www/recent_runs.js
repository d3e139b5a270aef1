// SPDX-License-Identifier: Apache-2.0
// Find the latest runs with Luma videos.

import { getSome } from "./airflow.js";
import { OPEN_TASK_STATES, RESULT_KEYS } from "./loading.js";
import { ourTasksOfDag } from "./our_tasks.js";

/** @import { ApiInstance, ApiXCom } from "./airflow.js" */

const MAX_ENTRIES = 300;
const MAX_DAGS = 50;
const MAX_AGE = 30 * 24 * 3600 * 1000;

/**
 * Find the runs of the last 30 days with Luma videos, newest first.
 *
 * @param {Map<string, boolean>} hasOurTasks caches the answer for each Dag
 * @param {AbortSignal} [signal]
 * @returns {Promise<{ runs: { dagId: string, runId: string }[], truncated: boolean }>} truncated: whether older
 *   runs may be missing
 */
export async function findRecentRuns(hasOurTasks, signal) {
  const everywhere = ["dags", "~", "dagRuns", "~", "taskInstances"];
  const since = new Date(Date.now() - MAX_AGE).toISOString();
  /** @type {{ items: (ApiXCom | ApiInstance)[], total: number }[]} */
  const lists = await Promise.all([
    ...["luma_tasks", "video_urls", "failed"].map((key) =>
      getSome(
        [...everywhere, "~", "xcomEntries"],
        { xcom_key: key, run_after_gte: since, order_by: "-timestamp" },
        "xcom_entries",
        MAX_ENTRIES,
        signal,
      ),
    ),
    getSome(
      everywhere,
      { operator: "LumaTaskSensor", state: OPEN_TASK_STATES, order_by: "-run_after" },
      "task_instances",
      MAX_ENTRIES,
      signal,
    ),
  ]);
  const found = lists.flatMap(({ items }) => items);
  // Tasks of other operators may push XComs with the keys of results, whose names are common.
  const [ambiguous, certain] = [true, false].map(
    (wanted) => new Set(found.filter(({ key }) => RESULT_KEYS.has(key ?? "") === wanted).map((entry) => entry.dag_id)),
  );
  const unknown = [...ambiguous].filter((id) => !certain.has(id) && !hasOurTasks.has(id)).slice(0, MAX_DAGS);
  await Promise.all(unknown.map(async (id) => hasOurTasks.set(id, (await ourTasksOfDag(id, signal)).size > 0)));
  const runs = new Map();
  for (const entry of found) {
    const dagId = entry.dag_id;
    const runId = entry.run_id ?? entry.dag_run_id;
    if (!certain.has(dagId) && !hasOurTasks.get(dagId)) continue;
    runs.set(JSON.stringify([dagId, runId]), { dagId, runId, runAfter: Date.parse(entry.run_after) });
  }
  return {
    runs: [...runs.values()].sort((a, b) => b.runAfter - a.runAfter),
    truncated: lists.some(({ items, total }) => items.length < total),
  };
}
