// SPDX-License-Identifier: Apache-2.0
// Airflow around this page: its REST API, asked in the viewer's own name, and the page that frames this one.

const BASE = new URL("../", document.baseURI);
const API = new URL("api/v2/", BASE);
// As many as Airflow gives at a time unless it is configured otherwise.
const PAGE_SIZE = 100;

// The session's cookie is enough, except before Airflow 3.2, which keeps a token in the browser's storage.
let authorization = {};

export class ApiError extends Error {
  /** status is 0 when no answer came at all */
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

/** GET a path, given as its parts, and return the JSON of the answer. */
export async function get(path, parameters = {}, signal = undefined) {
  const url = new URL(path.map(encodeURIComponent).join("/"), API);
  for (const [name, value] of Object.entries(parameters)) {
    for (const one of [value].flat()) url.searchParams.append(name, one);
  }
  let answer = await send(url, authorization, signal);
  if (answer.status === 401 && stored("token")) {
    const other = { Authorization: `Bearer ${stored("token")}` };
    answer = await send(url, other, signal);
    if (answer.ok) authorization = other;
  }
  if (!answer.ok) throw new ApiError(answer.status, await detail(answer));
  return answer.json();
}

async function send(url, headers, signal) {
  try {
    return await fetch(url, {
      headers: { Accept: "application/json", ...headers },
      credentials: "same-origin",
      cache: "no-store",
      signal,
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, "Airflow could not be reached");
  }
}

function stored(name) {
  try {
    return localStorage.getItem(name);
  } catch {
    return null;
  }
}

async function detail(answer) {
  try {
    const body = await answer.json();
    return typeof body.detail === "string" ? body.detail : answer.statusText;
  } catch {
    return answer.statusText;
  }
}

/**
 * GET the first items of a collection, at most limit of them; field is where the answers hold them.
 *
 * Returns {items, total}; total is how many there are.
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

/** The value of an XCom. */
export async function getXCom({ dagId, runId, taskId, mapIndex, key }, signal = undefined) {
  const path = ["dags", dagId, "dagRuns", runId, "taskInstances", taskId, "xcomEntries", key];
  const { value } = await get(path, { map_index: mapIndex }, signal);
  // It comes as the JSON text that the database holds.
  if (typeof value !== "string") return value;
  try {
    return JSON.parse(value);
  } catch {
    return value;
  }
}

export function runAddress(dagId, runId, page = "") {
  const path = ["dags", dagId, "runs", runId].map(encodeURIComponent).join("/");
  return new URL(page ? `${path}/${page}` : path, BASE).href;
}

export function taskAddress(dagId, runId, taskId, mapIndex) {
  const mapped = mapIndex >= 0 ? `/mapped/${mapIndex}` : "";
  return `${runAddress(dagId, runId)}/tasks/${encodeURIComponent(taskId)}${mapped}`;
}

export const homeAddress = BASE.href;

/** The document of Airflow's page when this one stands in its frame, else null. */
export function outerDocument() {
  try {
    return window.parent !== window ? window.parent.document : null;
  } catch {
    return null;
  }
}

/**
 * Have a link followed by Airflow's page: its frame lets this page neither open windows nor leave the frame.
 */
export function followOutside(event) {
  const outer = outerDocument();
  if (!outer) return;
  event.preventDefault();
  const link = event.currentTarget;
  const double = outer.createElement("a");
  double.href = link.href;
  double.rel = "noopener noreferrer";
  const newTab = link.target === "_blank" || event.ctrlKey || event.metaKey || event.shiftKey;
  if (newTab) double.target = "_blank";
  double.hidden = true;
  outer.body.append(double);
  double.click();
  double.remove();
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

/** Wear the theme that is chosen in Airflow, and change with it. */
export function wearTheme() {
  const root = document.documentElement;
  const outer = outerDocument()?.documentElement;
  const system = window.matchMedia("(prefers-color-scheme: dark)");
  function dress() {
    const alone = stored("theme") ?? "system";
    const dark = outer ? outer.classList.contains("dark") : alone === "dark" || (alone === "system" && system.matches);
    root.dataset.theme = dark ? "dark" : "light";
    if (!outer) return;
    document.body.style.fontFamily = window.parent.getComputedStyle(outer.ownerDocument.body).fontFamily;
    const outside = window.parent.getComputedStyle(outer);
    for (const [ours, theirs] of Object.entries(ADOPTED)) {
      const value = outside.getPropertyValue(theirs).trim();
      if (value) root.style.setProperty(ours, value);
    }
  }
  dress();
  system.addEventListener("change", dress);
  window.addEventListener("storage", dress);
  if (outer) new MutationObserver(dress).observe(outer, { attributes: true, attributeFilter: ["class"] });
}
