// SPDX-License-Identifier: Apache-2.0
// Load the gallery's modules outside a browser, with a fake of Airflow's API.

import { cpSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

const GALLERY = fileURLToPath(new URL("../../airflow_provider_luma/plugins/www", import.meta.url));
export const HOME = "http://airflow.test:8080/luma/";

// Node treats a .js file as a module only if a package.json says so.
const folder = mkdtempSync(join(tmpdir(), "luma-gallery-"));
process.on("exit", () => rmSync(folder, { recursive: true, force: true }));
cpSync(GALLERY, folder, { recursive: true });
writeFileSync(join(folder, "package.json"), '{"type": "module"}');

globalThis.document = { baseURI: HOME };
globalThis.location = new URL(HOME);
globalThis.localStorage = { getItem: () => null };

export function load(name) {
  return import(pathToFileURL(join(folder, name)).href);
}

/** A run in Airflow. instances: {task_id, map_index, ...}; xcoms: {task_id, map_index, key, value}. */
export class FakeAirflow {
  constructor({ instances = [], xcoms = [], tasks = [], state = "success", mostPerPage = 100 }) {
    Object.assign(this, { instances, xcoms, tasks, state, mostPerPage });
    this.calls = [];
    this.failures = new Map();
    globalThis.fetch = async (url) => this.#answer(new URL(url));
  }

  #answer(url) {
    const path = url.pathname.replace(/^\/api\/v2\//, "").split("/").map(decodeURIComponent);
    this.calls.push(path.join("/"));
    for (const [part, status] of this.failures) {
      if (path.join("/").includes(part)) return Response.json({ detail: "no" }, { status });
    }
    return Response.json(this.#find(path, url.searchParams));
  }

  #find(path, query) {
    const [, , what, , , taskId, , key] = path;
    if (what === "tasks") return { tasks: this.tasks, total_entries: this.tasks.length };
    if (path.length === 4) return { state: this.state };
    if (path.length === 5) return this.#page(this.instances, "task_instances", query);
    const xcoms = this.xcoms.filter((xcom) => taskId === "~" || xcom.task_id === taskId);
    if (key === undefined) return this.#page(xcoms, "xcom_entries", query);
    const mapIndex = Number(query.get("map_index"));
    const found = xcoms.find((xcom) => xcom.key === key && xcom.map_index === mapIndex);
    return { value: JSON.stringify(found.value) };
  }

  #page(rows, field, query) {
    const filters = { xcom_key: "key", task_id: "task_id", state: "state", operator: "operator", map_index: "map_index" };
    let found = rows;
    for (const [parameter, name] of Object.entries(filters)) {
      const wanted = query.getAll(parameter);
      if (wanted.length) found = found.filter((row) => wanted.includes(String(row[name])));
    }
    if (query.get("order_by") === "map_index") found = [...found].sort((a, b) => a.map_index - b.map_index);
    const [limit, offset] = ["limit", "offset"].map((name) => Number(query.get(name)));
    const page = found.slice(offset, offset + Math.min(limit, this.mostPerPage));
    const shown = page.map(({ value, ...row }) => ({ timestamp: "2026-01-01T00:00:00Z", ...row }));
    return { [field]: shown, total_entries: found.length };
  }
}

/** A task as the API returns it. */
export function task(id, operator = "LumaFetchArtifactsOperator") {
  const ours = operator.startsWith("Luma");
  return { task_id: id, operator_name: operator, template_fields: ours ? ["luma_task_ids", "luma_conn_id"] : [] };
}

/** A pipeline of mapped tasks: submit, wait and fetch, with one video for each index. */
export function mappedPipeline(count) {
  const numbers = Array.from({ length: count }, (_, number) => number);
  const pushed = (taskId, key, value) =>
    numbers.map((number) => ({ task_id: taskId, map_index: number, key, value: value(`video-${number}`, number) }));
  return {
    tasks: [
      task("submit", "LumaGenerateVideoOperator"),
      task("wait", "LumaTaskSensor"),
      task("fetch", "LumaFetchArtifactsOperator"),
    ],
    xcoms: [
      ...pushed("submit", "luma_tasks", (id, number) => ({ [id]: { index: 0, prompt: `prompt ${number}` } })),
      ...pushed("wait", "failed", () => ({})),
      ...pushed("wait", "return_value", (id) => [id]),
      ...pushed("fetch", "video_urls", (id) => [`https://cdn.test/${id}.mp4`]),
      ...pushed("fetch", "return_value", (id) => [{ id, video_url: `https://cdn.test/${id}.mp4` }]),
    ],
  };
}
