// SPDX-License-Identifier: Apache-2.0
// Derive the list of videos from what Airflow knows of a run, without access to page or network.
//
// The data come from a relay and have passed through Dags, so every value may have any type.

import { cleanText } from "./text.js";

/**
 * @typedef {"waiting" | "completed" | "failed" | "unfinished"} State
 * @typedef {Record<State | "all", number>} Counts
 * @typedef {{ taskId: string, mapIndex: number }} Source a task instance
 * @typedef {Source & { key: string, at: number, value: unknown }} Entry an XCom; at is when it was pushed
 * @typedef {Source & { state: string, since: number | null, open: boolean, ids: readonly unknown[] }} Wait
 *   a task instance that was given ids; it is open until it is in a terminal state
 * @typedef {{ video: string | null, raw: string | null, thumbnail: string | null, lastFrame: string | null }} Urls
 * @typedef {{
 *   key: string, id: string | null, state: State, refused: boolean, processing: boolean,
 *   prompt: string | null, reason: string | null, submittedAt: number | null, createdAt: number | null,
 *   waitedFor: (Omit<Wait, "ids">) | null, urls: Urls | null, fetchedBy: Source & { at: number } | null,
 *   width: number | null, height: number | null, duration: number | null, aspectRatio: string | null,
 *   tasks: Set<string>,
 * }} Video
 */

export const TERMINAL_RUN_STATES = new Set(["success", "failed"]);

const ID = /^[A-Za-z0-9_-]{1,128}$/;
const MAX_URL = 16000;
const OUR_TRIGGERS = "airflow_provider_luma.";

/**
 * Return a URL that may be followed or loaded, normalized, or null: only http and https are allowed.
 *
 * URLs into Airflow are refused, because the browser would send the session's cookie with them: loading a
 * thumbnail could sign the user out.
 *
 * @param {unknown} value
 * @param {string} [home] the URL of this page
 */
export function safeUrl(value, home = globalThis.location?.href) {
  if (typeof value !== "string" || value.length > MAX_URL) return null;
  const url = parse(value);
  if (url === null || (url.protocol !== "https:" && url.protocol !== "http:")) return null;
  if (url.username || url.password || url.origin === parse(home)?.origin) return null;
  return url.href;
}

/**
 * Whether a URL is on Airflow's host, on any port: browsers send cookies to every port of a host, so such a
 * file must be loaded without them.
 *
 * @param {string} url
 * @param {string} [home] the URL of this page
 */
export function sharesCookies(url, home = globalThis.location?.href) {
  return parse(url)?.hostname === parse(home)?.hostname;
}

/** @param {string} url */
function parse(url) {
  try {
    return new URL(url);
  } catch {
    return null;
  }
}

/** @param {unknown} value */
function positive(value) {
  return typeof value === "number" && Number.isFinite(value) && value > 0 ? value : null;
}

/** @param {unknown} value */
function number(value) {
  return typeof value === "number" && Number.isFinite(value) ? value : 0;
}

/** @param {unknown} value */
function time(value) {
  const parsed = typeof value === "string" && value.length < 100 ? Date.parse(value) : NaN;
  return Number.isNaN(parsed) ? null : parsed;
}

/** @type {(value: unknown) => value is Record<string, unknown>} */
function isObject(value) {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/**
 * Return the ids in a rendered field: a list, its text in JSON or Python, or the beginning of that text if
 * Airflow has truncated it.
 *
 * @param {unknown} field
 * @returns {string[]}
 */
export function idsIn(field) {
  if (Array.isArray(field)) return field.filter((id) => typeof id === "string" && ID.test(id));
  if (typeof field !== "string") return [];
  if (ID.test(field)) return [field];
  return [...field.matchAll(/(["'])([A-Za-z0-9_-]{1,128})\1/g)].map((match) => match[2]);
}

/**
 * Return the ids in the arguments of our trigger, which are Python text and, unlike rendered fields, complete.
 *
 * @param {{ classpath?: unknown, kwargs?: unknown } | null | undefined} trigger
 */
export function idsOfTrigger(trigger) {
  const { classpath, kwargs } = trigger ?? {};
  if (typeof kwargs !== "string" || typeof classpath !== "string" || !classpath.startsWith(OUR_TRIGGERS)) return [];
  const name = /["']luma_task_ids["']: \[/.exec(kwargs);
  if (name === null) return [];
  // Ids contain no bracket, so the list ends at the first one. A single pattern would take quadratic time.
  const start = name.index + name[0].length;
  const end = kwargs.indexOf("]", start);
  return end < 0 ? [] : idsIn(kwargs.slice(start, end));
}

/**
 * Whether Airflow has truncated a rendered field, so that ids are missing.
 *
 * @param {unknown} field
 */
export function isTruncated(field) {
  return typeof field === "string" && field.startsWith("Truncated.");
}

/** @param {Source} source */
export function taskKey({ taskId, mapIndex }) {
  return `${taskId}[${mapIndex}]`;
}

/**
 * Combine everything that is known about each video, in the order of submission.
 *
 * @param {{ entries: readonly Entry[], waits: readonly Wait[], runEnded: boolean }} known
 *   entries: XComs of this provider's operators with the keys luma_tasks, refused and failed, and return_value
 *     of tasks that have pushed failed or video_urls;
 *   waits: task instances of such operators;
 *   runEnded: whether waiting videos have become unfinished ones
 * @returns {Video[]}
 */
export function collectVideos({ entries, waits, runEnded }) {
  /** @type {Map<string, Video>} */
  const videos = new Map();

  /** @type {(id: unknown, source: Source) => Video | null} */
  function find(id, source) {
    if (typeof id !== "string" || !ID.test(id)) return null;
    const video = videos.get(id) ?? newVideo(id, id);
    videos.set(id, video);
    video.tasks.add(taskKey(source));
    return video;
  }

  for (const entry of withKey(entries, "luma_tasks")) {
    for (const [id, submission] of submissionsIn(entry.value)) {
      const video = find(id, entry);
      if (!video) continue;
      video.prompt ??= cleanText(submission.prompt);
      video.submittedAt ??= time(submission.submitted_at);
      video.processing ||= submission.state === "processing";
    }
  }
  for (const entry of withKey(entries, "refused")) {
    const refusals = Array.isArray(entry.value) ? entry.value.filter(isObject) : [];
    for (const [position, refusal] of refusals.entries()) {
      const key = `refused ${taskKey(entry)} ${position}`;
      videos.set(key, refusedVideo(key, refusal, entry));
    }
  }
  for (const wait of waits) {
    for (const id of wait.ids) {
      const video = find(id, wait);
      if (!video || !wait.open) continue;
      const { taskId, mapIndex, state, since, open } = wait;
      video.waitedFor = { taskId, mapIndex, state, since, open };
    }
  }
  for (const entry of withKey(entries, "return_value")) {
    for (const result of [entry.value].flat()) {
      const record = isObject(result) ? result : null;
      const video = find(record ? record.id : result, entry);
      if (!video) continue;
      video.state = "completed";
      if (record) addRecord(video, record, entry);
    }
  }
  for (const entry of withKey(entries, "failed")) {
    if (!isObject(entry.value)) continue;
    for (const [id, reason] of Object.entries(entry.value)) {
      const video = find(id, entry);
      if (!video || video.urls) continue;
      video.state = "failed";
      video.reason = cleanText(reason);
    }
  }
  for (const video of videos.values()) {
    if (video.state === "waiting" && runEnded && !video.waitedFor) video.state = "unfinished";
  }
  return [...videos.values()];
}

/** @type {(key: string, id: string | null) => Video} */
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
    urls: null,
    fetchedBy: null,
    width: null,
    height: null,
    duration: null,
    aspectRatio: null,
    tasks: new Set(),
  };
}

/** @type {(key: string, refusal: Record<string, unknown>, entry: Entry) => Video} */
function refusedVideo(key, refusal, entry) {
  const video = { ...newVideo(key, null), refused: true, tasks: new Set([taskKey(entry)]) };
  return { ...video, state: "failed", prompt: cleanText(refusal.prompt), reason: cleanText(refusal.reason) };
}

/** @type {(entries: readonly Entry[], key: string) => Entry[]} */
function withKey(entries, key) {
  return entries.filter((entry) => entry.key === key);
}

/** @type {(value: unknown) => [string, Record<string, unknown>][]} */
function submissionsIn(value) {
  const all = isObject(value) ? Object.entries(value) : [];
  const submissions = all.flatMap(([id, submission]) => (isObject(submission) ? [{ id, submission }] : []));
  submissions.sort((a, b) => number(a.submission.index) - number(b.submission.index));
  return submissions.map(({ id, submission }) => [id, submission]);
}

/** @type {(video: Video, record: Record<string, unknown>, entry: Entry) => void} */
function addRecord(video, record, entry) {
  // If a video was fetched twice, the later URLs are valid for longer.
  if (video.fetchedBy && video.fetchedBy.at > entry.at) return;
  video.fetchedBy = { taskId: entry.taskId, mapIndex: entry.mapIndex, at: entry.at };
  video.urls = {
    video: safeUrl(record.video_url),
    raw: safeUrl(record.video_raw_url),
    thumbnail: safeUrl(record.thumbnail_url),
    lastFrame: safeUrl(record.last_frame_url),
  };
  video.prompt = cleanText(record.prompt) ?? video.prompt;
  video.width = positive(record.width);
  video.height = positive(record.height);
  video.duration = positive(record.duration);
  video.aspectRatio = cleanText(record.aspect_ratio);
  video.createdAt = time(record.created_at);
}

/**
 * Count the videos in each state.
 *
 * @param {readonly Video[]} videos
 * @returns {Counts}
 */
export function countStates(videos) {
  const counts = { all: videos.length, waiting: 0, completed: 0, failed: 0, unfinished: 0 };
  for (const { state } of videos) counts[state] += 1;
  return counts;
}
