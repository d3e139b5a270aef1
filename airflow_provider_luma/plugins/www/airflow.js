// SPDX-License-Identifier: Apache-2.0
// Airflow around the gallery: its REST API, called as the signed-in user, and the page that embeds the gallery.

/**
 * @typedef {Record<string, string | number | readonly (string | number)[]>} Query the parameters of a URL
 *
 * Of each answer of the API only the fields that the gallery reads:
 * @typedef {{ state: string, start_date?: string | null, run_after: string }} ApiRun
 * @typedef {{ task_id: string, operator_name?: string | null, template_fields?: string[] | null }} ApiTask
 * @typedef {{
 *   id: string, dag_id: string, dag_run_id: string, run_id?: undefined, run_after: string, key?: undefined,
 *   task_id: string, map_index: number, state: string | null, start_date: string | null,
 *   rendered_fields?: { luma_task_ids?: unknown } | null, trigger?: { classpath?: unknown, kwargs?: unknown } | null,
 * }} ApiInstance a task instance
 * @typedef {{
 *   dag_id: string, run_id: string, dag_run_id?: undefined, run_after: string,
 *   task_id: string, map_index: number, key: string, timestamp: string,
 * }} ApiXCom an XCom without its value
 */

const BASE = new URL("../", document.baseURI);
const API = new URL("api/v2/", BASE);
// Airflow's default maximum; a server with a smaller one returns shorter pages, which getSome allows for.
const PAGE_SIZE = 100;

// The session's cookie suffices, except before Airflow 3.2, which keeps a token in the browser's storage.
/** @type {Record<string, string>} */
let authorization = {};

export class ApiError extends Error {
  /**
   * @param {number} status the HTTP status, or 0 without a response
   * @param {string} detail
   */
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

/**
 * Whether an error is a refusal (4xx), which doesn't change when the call is repeated.
 *
 * @param {unknown} error
 */
export function isRefusal(error) {
  return error instanceof ApiError && error.status >= 400 && error.status < 500;
}

/**
 * GET a path, given as its segments, and return the JSON of the response.
 *
 * @param {readonly string[]} path
 * @param {Query} [parameters]
 * @param {AbortSignal} [signal]
 * @returns {Promise<any>}
 */
export async function get(path, parameters = {}, signal = undefined) {
  const url = new URL(path.map(encodeURIComponent).join("/"), API);
  for (const [name, value] of Object.entries(parameters)) {
    for (const one of [value].flat()) url.searchParams.append(name, String(one));
  }
  let response = await send(url, authorization, signal);
  if (response.status === 401 && stored("token")) {
    const withToken = { Authorization: `Bearer ${stored("token")}` };
    response = await send(url, withToken, signal);
    if (response.ok) authorization = withToken;
  }
  if (!response.ok) throw new ApiError(response.status, await detail(response));
  return response.json();
}

/** @type {(url: URL, headers: Record<string, string>, signal?: AbortSignal) => Promise<Response>} */
async function send(url, headers, signal) {
  try {
    return await fetch(url, {
      headers: { Accept: "application/json", ...headers },
      credentials: "same-origin",
      cache: "no-store",
      signal,
    });
  } catch (error) {
    if (error instanceof Error && error.name === "AbortError") throw error;
    throw new ApiError(0, "Airflow can't be reached");
  }
}

/** @param {string} name */
function stored(name) {
  try {
    return localStorage.getItem(name);
  } catch {
    return null;
  }
}

/** @param {Response} response */
async function detail(response) {
  try {
    const body = await response.json();
    return typeof body.detail === "string" ? body.detail : response.statusText;
  } catch {
    return response.statusText;
  }
}

/**
 * GET the first items of a collection, at most limit of them, and the total number of items.
 *
 * @template {ApiInstance | ApiXCom} Item
 * @param {readonly string[]} path
 * @param {Query} parameters
 * @param {Item extends ApiXCom ? "xcom_entries" : "task_instances"} field the response's field with the items
 * @param {number} limit
 * @param {AbortSignal} [signal]
 * @returns {Promise<{ items: Item[], total: number }>}
 */
export async function getSome(path, parameters, field, limit, signal = undefined) {
  const items = [];
  let total;
  do {
    const page = { limit: Math.min(PAGE_SIZE, limit - items.length), offset: items.length };
    const answer = await get(path, { ...parameters, ...page }, signal);
    items.push(...answer[field]);
    total = answer.total_entries ?? items.length;
    if (!answer[field].length) break;
  } while (items.length < Math.min(limit, total));
  return { items, total };
}

/**
 * GET the value of an XCom.
 *
 * @param {{ dagId: string, runId: string, taskId: string, mapIndex: number, key: string }} xcom
 * @param {AbortSignal} [signal]
 * @returns {Promise<unknown>}
 */
export async function getXCom({ dagId, runId, taskId, mapIndex, key }, signal = undefined) {
  const path = ["dags", dagId, "dagRuns", runId, "taskInstances", taskId, "xcomEntries", key];
  const { value } = await get(path, { map_index: mapIndex }, signal);
  // Airflow returns the JSON text from the database.
  if (typeof value !== "string") return value;
  try {
    return JSON.parse(value);
  } catch {
    return value;
  }
}

/** @type {(dagId: string, runId: string, page?: string) => string} */
export function runUrl(dagId, runId, page = "") {
  const path = ["dags", dagId, "runs", runId].map(encodeURIComponent).join("/");
  return new URL(page ? `${path}/${page}` : path, BASE).href;
}

/** @type {(dagId: string, runId: string, taskId: string, mapIndex: number) => string} */
export function taskUrl(dagId, runId, taskId, mapIndex) {
  const mapped = mapIndex >= 0 ? `/mapped/${mapIndex}` : "";
  return `${runUrl(dagId, runId)}/tasks/${encodeURIComponent(taskId)}${mapped}`;
}

export const homeUrl = BASE.href;

/** Return the document that embeds this one in a frame, or null. */
export function outerDocument() {
  try {
    return window.parent !== window ? window.parent.document : null;
  } catch {
    return null;
  }
}

/**
 * Follow a clicked link in the embedding page, because its frame lets this page neither navigate nor open tabs.
 *
 * @param {MouseEvent} event
 */
export function followOutside(event) {
  const outer = outerDocument();
  const link = event.currentTarget;
  if (!outer || !(link instanceof HTMLAnchorElement)) return;
  event.preventDefault();
  const copy = outer.createElement("a");
  copy.href = link.href;
  copy.rel = "noopener noreferrer";
  const newTab = link.target === "_blank" || event.ctrlKey || event.metaKey || event.shiftKey;
  if (newTab) copy.target = "_blank";
  copy.hidden = true;
  outer.body.append(copy);
  copy.click();
  copy.remove();
}

const ADOPTED = {
  "--bg": "--chakra-colors-bg",
  "--bg-muted": "--chakra-colors-bg-muted",
  "--bg-subtle": "--chakra-colors-bg-subtle",
  "--fg": "--chakra-colors-fg",
  "--fg-muted": "--chakra-colors-fg-muted",
  "--border": "--chakra-colors-border-emphasized",
  "--accent": "--chakra-colors-brand-solid",
  "--on-accent": "--chakra-colors-brand-contrast",
  "--link": "--chakra-colors-fg-info",
};

/** Apply the theme of the Airflow UI, now and whenever it changes. */
export function adoptTheme() {
  const root = document.documentElement;
  const outer = outerDocument()?.documentElement;
  const system = window.matchMedia("(prefers-color-scheme: dark)");
  function apply() {
    const chosen = stored("theme") ?? "system";
    const standalone = chosen === "dark" || (chosen === "system" && system.matches);
    root.dataset.theme = (outer ? outer.classList.contains("dark") : standalone) ? "dark" : "light";
    if (!outer) return;
    document.body.style.fontFamily = window.parent.getComputedStyle(outer.ownerDocument.body).fontFamily;
    const outerStyle = window.parent.getComputedStyle(outer);
    for (const [ours, theirs] of Object.entries(ADOPTED)) {
      const value = outerStyle.getPropertyValue(theirs).trim();
      if (value) root.style.setProperty(ours, value);
    }
  }
  apply();
  system.addEventListener("change", apply);
  window.addEventListener("storage", apply);
  if (outer) new MutationObserver(apply).observe(outer, { attributes: true, attributeFilter: ["class"] });
}
