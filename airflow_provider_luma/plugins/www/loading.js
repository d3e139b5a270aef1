// SPDX-License-Identifier: Apache-2.0
// Ask Airflow for a run and its videos.

import { ApiError, get, getSome, getXCom } from "./airflow.js";
import { FINISHED_RUN, collectVideos, idsIn, idsOfTrigger, isCut, taskKey } from "./videos.js";

/** How many task instances' XComs of each key are read at first, and how many more each time. */
export const PORTION = 50;
// A mapped pipeline of three tasks pushes about four values for each index; each is a call of its own.
const VALUES_PER_INSTANCE = 4;
const INSTANCES = 6;
const MOST_TASKS = 1000;
const OPERATORS = new Set([
  "LumaGenerateVideoOperator",
  "LumaGenerateVideosOperator",
  "LumaExtendVideoOperator",
  "LumaTaskSensor",
  "LumaFetchArtifactsOperator",
  "LumaToObjectStorageOperator",
]);

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
 * portion: how many task instances to read; what a load costs Airflow depends on it, not on the run's size
 *
 * Returns {run, videos, active, cut, left}; cut tells that there are more videos than Airflow can name, and
 * left is {read, total} of the task instances when not all were read, else null.
 */
export async function loadRun(scope, cache, signal, portion = PORTION) {
  const { dagId, runId, taskId } = scope;
  const runPath = ["dags", dagId, "dagRuns", runId];
  const tasksPath = [...runPath, "taskInstances"];
  // Unmapped instances come first, then those of all tasks by their index: what is read belongs together.
  const some = (path, parameters, field, limit) =>
    getSome(path, { order_by: "map_index", ...parameters }, field, limit, signal);
  const xcoms = (id, parameters) => some([...tasksPath, id, "xcomEntries"], parameters, "xcom_entries", portion);

  const places = placesOf(scope);
  const [run, instanceLists, lists] = await Promise.all([
    get(runPath, {}, signal),
    Promise.all(
      instancesOf(scope).map((parameters) => some(tasksPath, parameters, "task_instances", INSTANCES * portion)),
    ),
    Promise.all(KEYS.flatMap((key) => places.map(([id, filter]) => xcoms(id, { ...filter, xcom_key: key })))),
  ]);
  const instances = new Map(instanceLists.flatMap(({ items }) => items).map((instance) => [instance.id, instance]));
  const waits = [...instances.values()].map(toWait).filter((wait) => wait.ids.length);
  const listed = lists.flatMap(({ items }) => items);
  const pushing = [...listed.map((entry) => entry.task_id), ...waits.map((wait) => wait.taskId)];
  const ours = await ourTasks([...new Set(pushing)], scope, cache, signal);

  const withResults = new Set(
    listed.filter((entry) => RESULT_KEYS.has(entry.key) && ours.has(entry.task_id)).map((entry) => entry.task_id),
  );
  const results = await Promise.all(
    [...withResults].slice(0, portion).flatMap((id) =>
      resultsOf(scope).map((filter) => xcoms(id, { ...filter, xcom_key: "return_value" })),
    ),
  );
  const wanted = unique(
    [...listed.filter((entry) => entry.key !== "video_urls"), ...results.flatMap(({ items }) => items)].filter(
      (entry) => ours.has(entry.task_id),
    ),
  ).sort((a, b) => a.map_index - b.map_index);
  const affordable = wanted.slice(0, VALUES_PER_INSTANCE * portion);
  const entries = (await Promise.all(affordable.map((entry) => load(entry, scope, cache, signal)))).filter(
    (entry) => entry !== null,
  );
  const ended = FINISHED_RUN.has(run.state);
  let videos = collectVideos({ entries, waits: waits.filter((wait) => ours.has(wait.taskId)), ended });
  if (taskId !== null) videos = videos.filter((video) => [...video.tasks].some((key) => isIn(scope, key)));
  const cut = waits.some((wait) => wait.cut) && !entries.some((entry) => entry.key === "luma_tasks");
  const tasks = { items: [...withResults].slice(0, portion), total: withResults.size };
  const left = leftOut([...instanceLists, ...lists, ...results, tasks, { items: affordable, total: wanted.length }]);
  return { run, videos, active: !ended, cut, left };
}

/** Where to look for XComs: [task, filter]. Other tasks know prompts of the scope's videos, and links to them. */
function placesOf({ taskId, mapIndex }) {
  if (taskId === null) return [["~", {}]];
  if (mapIndex === null) return [[taskId, {}], ["~", {}]];
  return resultsOf({ mapIndex }).map((filter) => ["~", filter]);
}

function resultsOf({ mapIndex }) {
  return mapIndex === null ? [{}] : [{ map_index: mapIndex }, { map_index: -1 }];
}

function instancesOf({ taskId, mapIndex }) {
  const telling = { state: TELLING_TASK_STATES };
  if (taskId === null) return [telling];
  if (mapIndex === null) return [{ task_id: taskId }, telling];
  return [
    { task_id: taskId, map_index: mapIndex },
    { ...telling, map_index: [mapIndex, -1] },
  ];
}

function isIn({ taskId, mapIndex }, key) {
  return mapIndex === null ? key.startsWith(`${taskId}[`) : key === taskKey({ taskId, mapIndex });
}

function unique(entries) {
  return [...new Map(entries.map((entry) => [`${entry.task_id}[${entry.map_index}] ${entry.key}`, entry])).values()];
}

/** Of the longest list that wasn't read whole: how much was read, and how much there is. */
function leftOut(lists) {
  const [longest] = lists.filter(({ items, total }) => items.length < total).sort((a, b) => b.total - a.total);
  return longest ? { read: longest.items.length, total: longest.total } : null;
}

/** Which of these tasks are of this provider's operators, or of classes that extend them. */
async function ourTasks(ids, { dagId, runId }, cache, signal) {
  const known = cache.get("our tasks") ?? new Map();
  const learn = (found) => ids.forEach((id) => known.set(id, known.get(id) || found.has(id)));
  if (ids.some((id) => !known.has(id))) {
    learn(await ourTasksOfDag(dagId, signal));
    // A task may be gone from the Dag, or be of another class there than it was in this run.
    if (ids.some((id) => !known.get(id))) learn(await ourTasksOfRun(dagId, runId, signal));
    cache.set("our tasks", known);
  }
  return new Set(ids.filter((id) => known.get(id)));
}

async function ourTasksOfDag(dagId, signal) {
  try {
    const { tasks } = await get(["dags", dagId, "tasks"], {}, signal);
    // Subclasses have names and modules of their own, and our template fields.
    const ours = tasks.filter(
      (task) => OPERATORS.has(task.operator_name) || task.template_fields?.includes("luma_conn_id"),
    );
    return new Set(ours.map((task) => task.task_id));
  } catch (error) {
    // The Dag was deleted, or the viewer may read its runs alone.
    if (error instanceof ApiError && (error.status === 403 || error.status === 404)) return new Set();
    throw error;
  }
}

async function ourTasksOfRun(dagId, runId, signal) {
  const path = ["dags", dagId, "dagRuns", runId, "taskInstances"];
  // One instance of each task: an unmapped one, or the first of the mapped ones.
  const one = { operator: [...OPERATORS], map_index: [-1, 0] };
  const { items } = await getSome(path, one, "task_instances", MOST_TASKS, signal);
  return new Set(items.map((instance) => instance.task_id));
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
    // Its task was cleared since it was listed, or runs in a loop, whose XComs Airflow 3.4 doesn't hand out.
    if (error instanceof ApiError && (error.status === 404 || error.status === 409)) return null;
    throw error;
  }
}

function named(instance) {
  return { taskId: instance.task_id, mapIndex: instance.map_index };
}

function toWait(instance) {
  const field = instance.rendered_fields?.luma_task_ids;
  const ids = idsOfTrigger(instance.trigger);
  return {
    ...named(instance),
    state: instance.state,
    since: instance.start_date ? Date.parse(instance.start_date) : null,
    open: OPEN_TASK_STATES.includes(instance.state),
    ids: ids.length ? ids : idsIn(field),
    cut: !ids.length && isCut(field),
  };
}

const RECENT_ENTRIES = 300;
const MOST_DAGS = 50;

/**
 * Find the runs that had to do with Luma lately, newest first.
 *
 * cache: a Map that spares asking for the same Dag again
 *
 * Returns {runs, cut}: runs are [{dagId, runId}], and cut tells that there may be more than these.
 */
export async function findRecentRuns(cache, signal) {
  const everywhere = ["dags", "~", "dagRuns", "~", "taskInstances"];
  const since = new Date(Date.now() - 30 * 24 * 3600 * 1000).toISOString();
  const lists = await Promise.all([
    ...["luma_tasks", "video_urls", "failed"].map((key) =>
      getSome(
        [...everywhere, "~", "xcomEntries"],
        { xcom_key: key, run_after_gte: since, order_by: "-timestamp" },
        "xcom_entries",
        RECENT_ENTRIES,
        signal,
      ),
    ),
    getSome(
      everywhere,
      { operator: "LumaTaskSensor", state: OPEN_TASK_STATES, order_by: "-run_after" },
      "task_instances",
      RECENT_ENTRIES,
      signal,
    ),
  ]);
  const found = lists.flatMap(({ items }) => items);
  // Other tasks may push a key of such a common name.
  const doubtful = new Set(found.filter((entry) => RESULT_KEYS.has(entry.key)).map((entry) => entry.dag_id));
  const dags = new Set(found.filter((entry) => !RESULT_KEYS.has(entry.key)).map((entry) => entry.dag_id));
  const asked = [...doubtful].filter((id) => !dags.has(id) && !cache.has(id)).slice(0, MOST_DAGS);
  await Promise.all(asked.map(async (id) => cache.set(id, (await ourTasksOfDag(id, signal)).size > 0)));
  const runs = new Map();
  for (const entry of found) {
    if (!dags.has(entry.dag_id) && !cache.get(entry.dag_id)) continue;
    const [dagId, runId] = [entry.dag_id, entry.run_id ?? entry.dag_run_id];
    runs.set(JSON.stringify([dagId, runId]), { dagId, runId, runAfter: Date.parse(entry.run_after) });
  }
  return {
    runs: [...runs.values()].sort((a, b) => b.runAfter - a.runAfter),
    cut: lists.some(({ items, total }) => items.length < total),
  };
}
