// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { test } from "node:test";

import { FakeAirflow, load, mappedPipeline, task } from "./fake_airflow.mjs";

const { INSTANCES_PER_LOAD, RunCache, loadRun } = await load("loading.js");
const { findRecentRuns } = await load("recent_runs.js");

const RUN = { dagId: "dag", runId: "run", taskId: null, mapIndex: null };
const EMAIL = "EmailOperator";
const IDS = ["someone", "someone-else"];

test("the calls of one load don't grow with the run, and unread task instances are counted", async () => {
  const airflow = new FakeAirflow(mappedPipeline(10_000));

  const { videos, unread } = await loadRun(RUN, new RunCache());

  assert.ok(airflow.calls.length < 300, `${airflow.calls.length} calls`);
  assert.deepEqual(unread, { read: INSTANCES_PER_LOAD, total: 10_000 });
  assert.equal(videos.length, INSTANCES_PER_LOAD);
  assert.ok(videos.every(({ state, prompt, urls }) => state === "completed" && prompt && urls.video));
});

test("loading more reads only what is new", async () => {
  const airflow = new FakeAirflow(mappedPipeline(1000));
  const cache = new RunCache();
  await loadRun(RUN, cache);
  airflow.calls.length = 0;

  const { videos, unread } = await loadRun(RUN, cache, undefined, 2 * INSTANCES_PER_LOAD);

  assert.equal(videos.length, 2 * INSTANCES_PER_LOAD);
  assert.deepEqual(unread, { read: 2 * INSTANCES_PER_LOAD, total: 1000 });
  assert.ok(airflow.calls.length < 300, `${airflow.calls.length} calls`);
});

test("a run that was read to its end has no unread task instances", async () => {
  new FakeAirflow(mappedPipeline(INSTANCES_PER_LOAD));

  const { videos, unread } = await loadRun(RUN, new RunCache());

  assert.equal(videos.length, INSTANCES_PER_LOAD);
  assert.equal(unread, null);
});

test("the calls for waiting instances are bounded", async () => {
  const instances = Array.from({ length: 10_000 }, (_, number) => ({
    id: number,
    task_id: "wait",
    map_index: number,
    state: "deferred",
    operator: "LumaTaskSensor",
    rendered_fields: { luma_task_ids: `["video-${number}"]` },
  }));
  const airflow = new FakeAirflow({ instances, tasks: [task("wait", "LumaTaskSensor")], state: "running" });

  const { videos, unread } = await loadRun(RUN, new RunCache());

  assert.ok(airflow.calls.length < 20, `${airflow.calls.length} calls`);
  assert.equal(videos.length, unread.read);
  assert.equal(unread.total, 10_000);
});

test("short pages are read until all items have been received", async () => {
  new FakeAirflow({ ...mappedPipeline(30), mostPerPage: 7 });

  const { videos, unread } = await loadRun(RUN, new RunCache());

  assert.equal(videos.length, 30);
  assert.equal(unread, null);
});

test("a mapped instance late in a long run has its video with prompt and URL", async () => {
  const airflow = new FakeAirflow(mappedPipeline(10_000));

  const { videos } = await loadRun({ ...RUN, taskId: "wait", mapIndex: 9_000 }, new RunCache());

  assert.deepEqual(videos.map(({ id }) => id), ["video-9000"]);
  assert.equal(videos[0].prompt, "prompt 9000");
  assert.equal(videos[0].urls.video, "https://cdn.test/video-9000.mp4");
  assert.ok(airflow.calls.length < 50, `${airflow.calls.length} calls`);
});

for (const [name, operator, shown] of [
  ["of another operator", EMAIL, 0],
  ["of one of ours", "LumaTaskSensor", 2],
]) {
  test(`ids and failures of a task ${name} are ${shown ? "read" : "ignored"}`, async () => {
    const xcoms = [
      { task_id: "push", map_index: -1, key: "failed", value: {} },
      { task_id: "push", map_index: -1, key: "return_value", value: IDS },
    ];
    new FakeAirflow({ xcoms, tasks: [task("push", operator)] });

    assert.equal((await loadRun(RUN, new RunCache())).videos.length, shown);
  });
}

test("a class that extends one of ours is ours", async () => {
  const own = { ...task("push", EMAIL), template_fields: ["luma_task_ids", "luma_conn_id"] };
  const xcoms = [{ task_id: "push", map_index: -1, key: "luma_tasks", value: { "id-1": { index: 0 } } }];
  new FakeAirflow({ xcoms, tasks: [own] });

  assert.equal((await loadRun(RUN, new RunCache())).videos.length, 1);
});

test("a removed task, or a task of a removed Dag, is recognized by the operator of its instances", async () => {
  const xcoms = [{ task_id: "old", map_index: -1, key: "luma_tasks", value: { "id-1": { index: 0 } } }];
  const instances = [{ id: 1, task_id: "old", map_index: -1, state: "success", operator: "LumaGenerateVideoOperator" }];
  for (const status of [null, 403, 404]) {
    const airflow = new FakeAirflow({ xcoms, instances, tasks: [task("new")] });
    if (status !== null) airflow.failures.set("dags/dag/tasks", status);

    assert.equal((await loadRun(RUN, new RunCache())).videos.length, 1, `${status}`);
  }
});

test("ids in a field of another operator are ignored", async () => {
  const waiting = { state: "deferred", rendered_fields: { luma_task_ids: '["id-1"]' } };
  const instances = [{ id: 1, task_id: "push", map_index: -1, operator: EMAIL, ...waiting }];
  new FakeAirflow({ instances, tasks: [task("push", EMAIL)], state: "running" });

  assert.deepEqual((await loadRun(RUN, new RunCache())).videos, []);
});

for (const status of [404, 409]) {
  test(`an XCom that Airflow answers with ${status} is skipped`, async () => {
    const airflow = new FakeAirflow(mappedPipeline(2));
    airflow.failures.set("xcomEntries/luma_tasks", status);

    const { videos } = await loadRun(RUN, new RunCache());

    assert.deepEqual(videos.map(({ prompt }) => prompt), [null, null]);
  });
}

test("recent runs omit Dags whose tasks only push the same keys", async () => {
  const entry = (dag, key) => ({ dag_id: dag, run_id: "r", task_id: "t", map_index: -1, key, run_after: "2026-01-01" });
  new FakeAirflow({ xcoms: [entry("mails", "failed")], tasks: [task("t", EMAIL)] });
  assert.deepEqual((await findRecentRuns(new Map())).runs, []);

  new FakeAirflow({ xcoms: [entry("videos", "failed")], tasks: [task("t")] });
  const { runs, truncated } = await findRecentRuns(new Map());
  assert.deepEqual(runs.map(({ dagId }) => dagId), ["videos"]);
  assert.equal(truncated, false);
});
