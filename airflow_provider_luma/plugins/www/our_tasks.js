// SPDX-License-Identifier: Apache-2.0
// Tell this provider's tasks from others, which may push XComs with the same keys.

import { ApiError, get, getSome } from "./airflow.js";

/** @import { ApiInstance, ApiTask } from "./airflow.js" */

const MAX_TASKS = 1000;
const OPERATORS = new Set([
  "LumaGenerateVideoOperator",
  "LumaGenerateVideosOperator",
  "LumaExtendVideoOperator",
  "LumaTaskSensor",
  "LumaFetchArtifactsOperator",
  "LumaToObjectStorageOperator",
]);

/**
 * Return which tasks of a run are of this provider's operators, or of subclasses of them.
 *
 * @param {readonly string[]} ids
 * @param {{ dagId: string, runId: string }} run
 * @param {Map<string, boolean>} known caches the answer for each task
 * @param {AbortSignal} [signal]
 */
export async function ourTasks(ids, { dagId, runId }, known, signal) {
  if (ids.some((id) => !known.has(id))) {
    let found = await ourTasksOfDag(dagId, signal);
    // The Dag may no longer have a task, or may have it with another operator than in this run.
    if (ids.some((id) => !known.get(id) && !found.has(id))) {
      found = new Set([...found, ...(await ourTasksOfRun(dagId, runId, signal))]);
    }
    for (const id of ids) known.set(id, known.get(id) || found.has(id));
  }
  return new Set(ids.filter((id) => known.get(id)));
}

/**
 * Return the ids of this provider's tasks in a Dag; none if the Dag can't be read.
 *
 * @param {string} dagId
 * @param {AbortSignal} [signal]
 * @returns {Promise<Set<string>>}
 */
export async function ourTasksOfDag(dagId, signal) {
  try {
    /** @type {{ tasks: ApiTask[] }} */
    const { tasks } = await get(["dags", dagId, "tasks"], {}, signal);
    // Subclasses have other names and modules, but inherit the template field.
    const ours = tasks.filter(
      (task) => OPERATORS.has(task.operator_name ?? "") || task.template_fields?.includes("luma_conn_id"),
    );
    return new Set(ours.map((task) => task.task_id));
  } catch (error) {
    // The Dag was deleted, or the user may read only its runs.
    if (error instanceof ApiError && (error.status === 403 || error.status === 404)) return new Set();
    throw error;
  }
}

/** @type {(dagId: string, runId: string, signal?: AbortSignal) => Promise<Set<string>>} */
async function ourTasksOfRun(dagId, runId, signal) {
  const path = ["dags", dagId, "dagRuns", runId, "taskInstances"];
  // One instance per task suffices: an unmapped one, or the first mapped one.
  const first = { operator: [...OPERATORS], map_index: [-1, 0] };
  /** @type {{ items: ApiInstance[] }} */
  const { items } = await getSome(path, first, "task_instances", MAX_TASKS, signal);
  return new Set(items.map((instance) => instance.task_id));
}
