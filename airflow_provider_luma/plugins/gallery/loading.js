// SPDX-License-Identifier: Apache-2.0
// Ask Airflow for a run and its videos.

import { ApiError, get, getAll, getXCom } from "./airflow.js";
import { FINISHED_RUN, collectVideos, idsIn, idsOfTrigger, isCut, taskKey } from "./videos.js";

const OPEN_TASK_STATES = [
  "scheduled",
  "queued",
  "running",
  "deferred",
  "up_for_reschedule",
  "up_for_retry",
  "restarting",
];
// A task that gave up waiting has told what failed, but not which ids it left open.
const TELLING_TASK_STATES = [...OPEN_TASK_STATES, "failed", "skipped"];
const KEYS = ["luma_tasks", "refused", "failed", "video_urls"];
// A task that pushed one of these has returned ids or artifact records.
const RESULT_KEYS = new Set(["failed", "video_urls"]);

/**
 * Load a run, or what one of its tasks has to do with.
 *
 * scope: {dagId, runId, taskId, mapIndex}; taskId is null for the whole run, and mapIndex for all instances
 * cache: a Map that spares asking again for values that haven't changed
 *
 * Returns {run, videos, active, cut}; cut tells that there are more videos than Airflow can name.
 */
export async function loadRun(scope, cache, signal) {
  const { dagId, runId, taskId } = scope;
  const runPath = ["dags", dagId, "dagRuns", runId];
  const tasksPath = [...runPath, "taskInstances"];
  const [run, telling, own, ...lists] = await Promise.all([
    get(runPath, {}, signal),
    getAll(tasksPath, { state: TELLING_TASK_STATES }, "task_instances", signal),
    taskId === null ? [] : ownInstances(tasksPath, scope, signal),
    ...KEYS.map((key) =>
      getAll([...tasksPath, "~", "xcomEntries"], { xcom_key: key }, "xcom_entries", signal),
    ),
  ]);
  const listed = lists.flat();
  const tasksWithResults = new Set(
    listed.filter((entry) => RESULT_KEYS.has(entry.key)).map((entry) => entry.task_id),
  );
  const results = await Promise.all(
    [...tasksWithResults].map((id) =>
      getAll([...tasksPath, id, "xcomEntries"], { xcom_key: "return_value" }, "xcom_entries", signal),
    ),
  );
  const wanted = [...listed.filter((entry) => entry.key !== "video_urls"), ...results.flat()];
  const entries = (await Promise.all(wanted.map((entry) => load(entry, scope, cache, signal)))).filter(
    (entry) => entry !== null,
  );
  const instances = new Map([...telling, ...own].map((instance) => [instance.id, instance]));
  const waits = [...instances.values()].map(toWait).filter((wait) => wait.ids.length);
  const ended = FINISHED_RUN.has(run.state);
  let videos = collectVideos({ entries, waits, ended });
  if (taskId !== null) {
    const keys = new Set(own.map((instance) => taskKey(named(instance))));
    videos = videos.filter((video) => [...video.tasks].some((key) => keys.has(key)));
  }
  const cut = waits.some((wait) => wait.cut) && !entries.some((entry) => entry.key === "luma_tasks");
  return { run, videos, active: !ended, cut };
}

async function ownInstances(tasksPath, { taskId, mapIndex }, signal) {
  const all = await getAll(tasksPath, { task_id: taskId }, "task_instances", signal);
  return mapIndex === null ? all : all.filter((instance) => instance.map_index === mapIndex);
}

async function load(entry, { dagId, runId }, cache, signal) {
  const place = { dagId, runId, taskId: entry.task_id, mapIndex: entry.map_index, key: entry.key };
  const at = Date.parse(entry.timestamp);
  const cacheKey = JSON.stringify(place);
  const kept = cache.get(cacheKey);
  if (kept && kept.at === at) return kept;
  try {
    const loaded = { ...place, at, value: await getXCom(place, signal) };
    cache.set(cacheKey, loaded);
    return loaded;
  } catch (error) {
    // Its task was cleared since it was listed.
    if (error instanceof ApiError && error.status === 404) return null;
    throw error;
  }
}

function named(instance) {
  return { taskId: instance.task_id, mapIndex: instance.map_index };
}

function toWait(instance) {
  const field = instance.rendered_fields?.luma_task_ids;
  const ids = idsOfTrigger(instance.trigger?.kwargs);
  return {
    ...named(instance),
    state: instance.state,
    since: instance.start_date ? Date.parse(instance.start_date) : null,
    open: OPEN_TASK_STATES.includes(instance.state),
    ids: ids.length ? ids : idsIn(field),
    cut: !ids.length && isCut(field),
  };
}

/**
 * Find the runs that had to do with Luma lately, newest first.
 *
 * Returns [{dagId, runId}].
 */
export async function findRecentRuns(signal) {
  const everywhere = ["dags", "~", "dagRuns", "~", "taskInstances"];
  const since = new Date(Date.now() - 30 * 24 * 3600 * 1000).toISOString();
  const lists = await Promise.all([
    ...["luma_tasks", "video_urls", "failed"].map((key) =>
      getAll(
        [...everywhere, "~", "xcomEntries"],
        { xcom_key: key, run_after_gte: since, order_by: "-timestamp" },
        "xcom_entries",
        signal,
        3,
      ),
    ),
    getAll(
      everywhere,
      { operator: "LumaTaskSensor", state: OPEN_TASK_STATES, order_by: "-run_after" },
      "task_instances",
      signal,
      3,
    ),
  ]);
  const runs = new Map();
  for (const found of lists.flat()) {
    const [dagId, runId] = [found.dag_id, found.run_id ?? found.dag_run_id];
    runs.set(JSON.stringify([dagId, runId]), { dagId, runId, runAfter: Date.parse(found.run_after) });
  }
  return [...runs.values()].sort((a, b) => b.runAfter - a.runAfter);
}
