// SPDX-License-Identifier: Apache-2.0
// Load a run and its videos from Airflow.

import { ApiError, get, getSome, getXCom } from "./airflow.js";
import { ourTasks } from "./our_tasks.js";
import { TERMINAL_RUN_STATES, collectVideos, idsIn, idsOfTrigger, isTruncated, taskKey } from "./videos.js";

/**
 * @import { ApiInstance, ApiRun, ApiXCom, Query } from "./airflow.js"
 * @import { Entry, Video, Wait } from "./videos.js"
 *
 * @typedef {{ dagId: string, runId: string, taskId: string | null, mapIndex: number | null }} Scope
 *   taskId is null for the whole run, and mapIndex for all instances of the task
 * @typedef {{ read: number, total: number }} Unread how many task instances were read of how many
 * @typedef {{ run: ApiRun, videos: Video[], active: boolean, truncated: boolean, unread: Unread | null }} LoadedRun
 *   truncated: whether Airflow has truncated a list of ids, so that videos are missing;
 *   unread: null if all task instances were read
 */

/** How many task instances' XComs of each key are read at first, and how many more each time. */
export const INSTANCES_PER_LOAD = 50;
// A mapped pipeline of three tasks pushes about four values per index, and each value costs a call.
const VALUES_PER_INSTANCE = 4;
const WAITS_PER_INSTANCE = 6;

export const OPEN_TASK_STATES = [
  "scheduled",
  "queued",
  "running",
  "deferred",
  "up_for_reschedule",
  "up_for_retry",
  "restarting",
];
// A task that failed while waiting has pushed which ids failed, but not which ones were still open.
const WAIT_STATES = [...OPEN_TASK_STATES, "failed", "skipped"];
const KEYS = ["luma_tasks", "refused", "failed", "video_urls"];
/** Tasks that push one of these keys return ids or artifact records. */
export const RESULT_KEYS = new Set(["failed", "video_urls"]);

/** What is kept between the loads of one run. */
export class RunCache {
  /** @type {Map<string, Entry>} */
  entries = new Map();
  /** @type {Map<string, boolean>} */
  ourTasks = new Map();
}

/**
 * Load a run, or the part of it that concerns one task.
 *
 * @param {Scope} scope
 * @param {RunCache} cache saves the calls for values that haven't changed
 * @param {AbortSignal} [signal]
 * @param {number} [limit] how many task instances to read; the number of calls depends on it, not on the run
 * @returns {Promise<LoadedRun>}
 */
export async function loadRun(scope, cache, signal, limit = INSTANCES_PER_LOAD) {
  const { dagId, runId, taskId } = scope;
  const runPath = ["dags", dagId, "dagRuns", runId];
  const tasksPath = [...runPath, "taskInstances"];
  // Unmapped instances come first, then those of all tasks by index, so that what is read belongs together.
  const order = { order_by: "map_index" };
  /** @type {(parameters: Query) => Promise<{ items: ApiInstance[], total: number }>} */
  const listInstances = (parameters) =>
    getSome(tasksPath, { ...order, ...parameters }, "task_instances", WAITS_PER_INSTANCE * limit, signal);
  /** @type {(id: string, parameters: Query) => Promise<{ items: ApiXCom[], total: number }>} */
  const listXComs = (id, parameters) =>
    getSome([...tasksPath, id, "xcomEntries"], { ...order, ...parameters }, "xcom_entries", limit, signal);

  const places = placesOf(scope);
  /** @type {[ApiRun, { items: ApiInstance[], total: number }[], { items: ApiXCom[], total: number }[]]} */
  const [run, instanceLists, lists] = await Promise.all([
    get(runPath, {}, signal),
    Promise.all(instancesOf(scope).map(listInstances)),
    Promise.all(KEYS.flatMap((key) => places.map(([id, filter]) => listXComs(id, { ...filter, xcom_key: key })))),
  ]);
  const instances = new Map(instanceLists.flatMap(({ items }) => items).map((instance) => [instance.id, instance]));
  const waits = [...instances.values()].map(toWait).filter((wait) => wait.ids.length);
  const listed = lists.flatMap(({ items }) => items);
  const taskIds = new Set([...listed.map((entry) => entry.task_id), ...waits.map((wait) => wait.taskId)]);
  const ours = await ourTasks([...taskIds], scope, cache.ourTasks, signal);

  const withResults = listed.filter((entry) => RESULT_KEYS.has(entry.key) && ours.has(entry.task_id));
  const resultTasks = [...new Set(withResults.map((entry) => entry.task_id))];
  const readTasks = resultTasks.slice(0, limit);
  const results = await Promise.all(
    readTasks.flatMap((id) => filtersOf(scope).map((filter) => listXComs(id, { ...filter, xcom_key: "return_value" }))),
  );
  const wanted = unique([
    ...listed.filter((entry) => entry.key !== "video_urls"),
    ...results.flatMap(({ items }) => items),
  ])
    .filter((entry) => ours.has(entry.task_id))
    .sort((a, b) => a.map_index - b.map_index);
  const read = wanted.slice(0, VALUES_PER_INSTANCE * limit);
  const entries = (await Promise.all(read.map((xcom) => loadEntry(xcom, scope, cache, signal)))).flat();
  const runEnded = TERMINAL_RUN_STATES.has(run.state);
  const videos = collectVideos({ entries, waits: waits.filter((wait) => ours.has(wait.taskId)), runEnded });
  return {
    run,
    videos: taskId === null ? videos : videos.filter(({ tasks }) => [...tasks].some((key) => isIn(scope, key))),
    active: !runEnded,
    truncated: waits.some((wait) => wait.truncated) && !entries.some((entry) => entry.key === "luma_tasks"),
    unread: findUnread([
      ...instanceLists,
      ...lists,
      ...results,
      { items: readTasks, total: resultTasks.length },
      { items: read, total: wanted.length },
    ]),
  };
}

/**
 * Return where to list XComs: other tasks know the prompts of the scope's videos, and their URLs.
 *
 * @param {Scope} scope
 * @returns {[taskId: string, filter: Query][]}
 */
function placesOf({ taskId, mapIndex }) {
  if (taskId === null) return [["~", {}]];
  if (mapIndex === null) return [[taskId, {}], ["~", {}]];
  return filtersOf({ mapIndex }).map((filter) => ["~", filter]);
}

/** @type {(scope: { mapIndex: number | null }) => Query[]} */
function filtersOf({ mapIndex }) {
  return mapIndex === null ? [{}] : [{ map_index: mapIndex }, { map_index: -1 }];
}

/** @type {(scope: Scope) => Query[]} */
function instancesOf({ taskId, mapIndex }) {
  const waiting = { state: WAIT_STATES };
  if (taskId === null) return [waiting];
  if (mapIndex === null) return [{ task_id: taskId }, waiting];
  return [
    { task_id: taskId, map_index: mapIndex },
    { ...waiting, map_index: [mapIndex, -1] },
  ];
}

/** @type {(scope: Scope, key: string) => boolean} */
function isIn({ taskId, mapIndex }, key) {
  if (taskId === null) return true;
  return mapIndex === null ? key.startsWith(`${taskId}[`) : key === taskKey({ taskId, mapIndex });
}

/** @param {readonly ApiXCom[]} xcoms */
function unique(xcoms) {
  return [...new Map(xcoms.map((xcom) => [`${xcom.task_id}[${xcom.map_index}] ${xcom.key}`, xcom])).values()];
}

/**
 * Return how much was read of the longest list that wasn't read to its end.
 *
 * @param {readonly { items: readonly unknown[], total: number }[]} lists
 * @returns {Unread | null}
 */
function findUnread(lists) {
  const [longest] = lists.filter(({ items, total }) => items.length < total).sort((a, b) => b.total - a.total);
  return longest ? { read: longest.items.length, total: longest.total } : null;
}

/** @type {(xcom: ApiXCom, run: Scope, cache: RunCache, signal?: AbortSignal) => Promise<Entry[]>} */
async function loadEntry(xcom, { dagId, runId }, cache, signal) {
  const place = { dagId, runId, taskId: xcom.task_id, mapIndex: xcom.map_index, key: xcom.key };
  const at = Date.parse(xcom.timestamp);
  const cacheKey = JSON.stringify(place);
  const kept = cache.entries.get(cacheKey);
  if (kept && kept.at === at) return [kept];
  try {
    const loaded = { ...place, at, value: await getXCom(place, signal) };
    cache.entries.set(cacheKey, loaded);
    return [loaded];
  } catch (error) {
    // The task was cleared since it was listed, or is in a loop, whose XComs Airflow 3.4 doesn't return.
    if (error instanceof ApiError && (error.status === 404 || error.status === 409)) return [];
    throw error;
  }
}

/** @type {(instance: ApiInstance) => Wait & { truncated: boolean }} */
function toWait(instance) {
  const field = instance.rendered_fields?.luma_task_ids;
  const ids = idsOfTrigger(instance.trigger);
  return {
    taskId: instance.task_id,
    mapIndex: instance.map_index,
    state: instance.state ?? "",
    since: instance.start_date ? Date.parse(instance.start_date) : null,
    open: OPEN_TASK_STATES.includes(instance.state ?? ""),
    ids: ids.length ? ids : idsIn(field),
    truncated: !ids.length && isTruncated(field),
  };
}
