// SPDX-License-Identifier: Apache-2.0
// From what Airflow knows of a run to the list of its videos. No page and no network here.
//
// All of it came from a relay and passed through Dags, so nothing is taken for what it should be.

import { cleanText } from "./text.js";

export const FINISHED_RUN = new Set(["success", "failed"]);

const ID = /^[A-Za-z0-9_-]{1,128}$/;
const LONGEST_LINK = 16000;
const OUR_TRIGGERS = "airflow_provider_luma.";

/**
 * A link that may be followed or loaded: http or https, else null.
 *
 * A link into Airflow is none: the browser would send the viewer's session along, and looking at a picture
 * could sign them out. home is the address of this page.
 */
export function safeLink(value, home = globalThis.location?.href) {
  if (typeof value !== "string" || value.length > LONGEST_LINK) return null;
  const url = parse(value);
  if (url === null || (url.protocol !== "https:" && url.protocol !== "http:")) return null;
  if (url.username || url.password || url.origin === parse(home)?.origin) return null;
  return url.href;
}

/**
 * Whether a link leads to Airflow's host, on another port: the browser sends cookies to every port of a
 * host, so such a file is loaded without them.
 */
export function sharesCookies(link, home = globalThis.location?.href) {
  return parse(link)?.hostname === parse(home)?.hostname;
}

function parse(address) {
  try {
    return new URL(address);
  } catch {
    return null;
  }
}

function positive(value) {
  return typeof value === "number" && Number.isFinite(value) && value > 0 ? value : null;
}

function number(value) {
  return Number.isFinite(value) ? value : 0;
}

function time(value) {
  const parsed = typeof value === "string" && value.length < 100 ? Date.parse(value) : NaN;
  return Number.isNaN(parsed) ? null : parsed;
}

function isObject(value) {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function items(value) {
  return Array.isArray(value) ? value : [];
}

/**
 * The ids in a rendered field: a list, its text in JSON or Python, or the beginning of that text where
 * Airflow has cut it.
 */
export function idsIn(field) {
  if (Array.isArray(field)) return field.filter((id) => typeof id === "string" && ID.test(id));
  if (typeof field !== "string") return [];
  if (ID.test(field)) return [field];
  return [...field.matchAll(/(["'])([A-Za-z0-9_-]{1,128})\1/g)].map((match) => match[2]);
}

/** The ids in our trigger's arguments, which come as Python's text and, unlike rendered fields, uncut. */
export function idsOfTrigger(trigger) {
  const { classpath, kwargs } = trigger ?? {};
  if (typeof kwargs !== "string" || typeof classpath !== "string" || !classpath.startsWith(OUR_TRIGGERS)) return [];
  const name = /["']luma_task_ids["']: \[/.exec(kwargs);
  if (name === null) return [];
  // The first bracket after it: ids hold none. A pattern up to it would be tried from each of many names.
  const start = name.index + name[0].length;
  const end = kwargs.indexOf("]", start);
  return end < 0 ? [] : idsIn(kwargs.slice(start, end));
}

/** Whether Airflow has cut a rendered field, so that ids are missing. */
export function isCut(field) {
  return typeof field === "string" && field.startsWith("Truncated.");
}

export function taskKey({ taskId, mapIndex }) {
  return `${taskId}[${mapIndex}]`;
}

/**
 * Tell what is known of each video.
 *
 * entries: the XComs {taskId, mapIndex, key, at, value} that tasks of this provider's operators pushed, of the
 *   keys luma_tasks, refused, failed, and of return_value where one of failed and video_urls stands beside it
 * waits: the task instances of such tasks {taskId, mapIndex, state, since, open, ids} that were given ids; open ones
 *   are not at their end
 * ended: whether the run is over, so that what is open stays so
 *
 * Returns {key, id, state, ...} in order of submission; state is waiting, completed, failed or unfinished.
 */
export function collectVideos({ entries, waits, ended }) {
  const videos = new Map();

  function video(id, source) {
    if (typeof id !== "string" || !ID.test(id)) return null;
    let known = videos.get(id);
    if (!known) {
      known = newVideo(id, id);
      videos.set(id, known);
    }
    known.tasks.add(taskKey(source));
    return known;
  }

  for (const entry of ofKey(entries, "luma_tasks")) {
    if (!isObject(entry.value)) continue;
    const submits = Object.entries(entry.value).filter(([, told]) => isObject(told));
    for (const [id, told] of submits.sort(([, a], [, b]) => number(a.index) - number(b.index))) {
      const known = video(id, entry);
      if (!known) continue;
      known.prompt ??= cleanText(told.prompt);
      known.submittedAt ??= time(told.submitted_at);
      known.processing ||= told.state === "processing";
    }
  }
  for (const entry of ofKey(entries, "refused")) {
    for (const [position, told] of items(entry.value).filter(isObject).entries()) {
      const key = `refused ${taskKey(entry)} ${position}`;
      videos.set(key, {
        ...newVideo(key, null),
        state: "failed",
        refused: true,
        prompt: cleanText(told.prompt),
        reason: cleanText(told.reason),
        tasks: new Set([taskKey(entry)]),
      });
    }
  }
  for (const wait of waits) {
    for (const id of wait.ids) {
      const known = video(id, wait);
      if (known && wait.open) known.waitedFor = { ...wait, ids: undefined };
    }
  }
  for (const entry of ofKey(entries, "return_value")) {
    for (const told of [entry.value].flat()) {
      if (typeof told === "string") complete(video(told, entry));
      else if (isObject(told)) addRecord(video(told.id, entry), told, entry);
    }
  }
  for (const entry of ofKey(entries, "failed")) {
    if (!isObject(entry.value)) continue;
    for (const [id, reason] of Object.entries(entry.value)) {
      const known = video(id, entry);
      if (!known || known.links) continue;
      known.state = "failed";
      known.reason = cleanText(reason);
    }
  }
  for (const known of videos.values()) {
    if (known.state === "waiting" && ended && !known.waitedFor) known.state = "unfinished";
  }
  return [...videos.values()];
}

function newVideo(key, id) {
  return {
    key,
    id,
    state: "waiting",
    refused: false,
    processing: false,
    prompt: null,
    reason: null,
    submittedAt: null,
    createdAt: null,
    waitedFor: null,
    links: null,
    width: null,
    height: null,
    duration: null,
    aspectRatio: null,
    fetchedBy: null,
    tasks: new Set(),
  };
}

function ofKey(entries, key) {
  return entries.filter((entry) => entry.key === key);
}

function complete(known) {
  if (known) known.state = "completed";
}

function addRecord(known, record, entry) {
  if (!known) return;
  complete(known);
  // The same video may be fetched twice: the later links hold longer.
  if (known.fetchedBy && known.fetchedBy.at > entry.at) return;
  known.fetchedBy = { taskId: entry.taskId, mapIndex: entry.mapIndex, at: entry.at };
  known.links = {
    video: safeLink(record.video_url),
    raw: safeLink(record.video_raw_url),
    thumbnail: safeLink(record.thumbnail_url),
    lastFrame: safeLink(record.last_frame_url),
  };
  known.prompt = cleanText(record.prompt) ?? known.prompt;
  known.width = positive(record.width);
  known.height = positive(record.height);
  known.duration = positive(record.duration);
  known.aspectRatio = cleanText(record.aspect_ratio);
  known.createdAt = time(record.created_at);
}

/** How many there are of each state. */
export function countStates(videos) {
  const counts = { all: videos.length, waiting: 0, completed: 0, failed: 0, unfinished: 0 };
  for (const { state } of videos) counts[state] += 1;
  return counts;
}
