// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { test } from "node:test";

import { FakeAirflow, load, mappedPipeline, task } from "./fake_airflow.mjs";

const { PORTION, findRecentRuns, loadRun } = await load("loading.js");

const RUN = { dagId: "dag", runId: "run", taskId: null, mapIndex: null };
const EMAIL = "EmailOperator";
const IDS = ["someone", "someone-else"];

test("the calls of one load don't grow with the run, and what was left out is counted", async () => {
  const airflow = new FakeAirflow(mappedPipeline(10_000));

  const { videos, left } = await loadRun(RUN, new Map());

  assert.ok(airflow.calls.length < 300, `${airflow.calls.length} calls`);
  assert.deepEqual(left, { read: PORTION, total: 10_000 });
  assert.equal(videos.length, PORTION);
  assert.ok(videos.every(({ state, prompt, links }) => state === "completed" && prompt && links.video));
});

test("loading more asks for what is new alone", async () => {
  const airflow = new FakeAirflow(mappedPipeline(1000));
  const cache = new Map();
  await loadRun(RUN, cache);
  airflow.calls.length = 0;

  const { videos, left } = await loadRun(RUN, cache, undefined, 2 * PORTION);

  assert.equal(videos.length, 2 * PORTION);
  assert.deepEqual(left, { read: 2 * PORTION, total: 1000 });
  assert.ok(airflow.calls.length < 300, `${airflow.calls.length} calls`);
});

test("a run that was read whole leaves nothing out", async () => {
  new FakeAirflow(mappedPipeline(PORTION));

  const { videos, left } = await loadRun(RUN, new Map());

  assert.equal(videos.length, PORTION);
  assert.equal(left, null);
});

test("thousands of waiting instances are bounded, too", async () => {
  const instances = Array.from({ length: 10_000 }, (_, number) => ({
    id: number,
    task_id: "wait",
    map_index: number,
    state: "deferred",
    operator: "LumaTaskSensor",
    rendered_fields: { luma_task_ids: `["video-${number}"]` },
  }));
  const airflow = new FakeAirflow({ instances, tasks: [task("wait", "LumaTaskSensor")], state: "running" });

  const { videos, left } = await loadRun(RUN, new Map());

  assert.ok(airflow.calls.length < 20, `${airflow.calls.length} calls`);
  assert.equal(videos.length, left.read);
  assert.equal(left.total, 10_000);
});

test("an Airflow that gives few items at a time is asked as often as it takes", async () => {
  new FakeAirflow({ ...mappedPipeline(30), mostPerPage: 7 });

  const { videos, left } = await loadRun(RUN, new Map());

  assert.equal(videos.length, 30);
  assert.equal(left, null);
});

test("a mapped instance far down a long run shows its video with prompt and link", async () => {
  const airflow = new FakeAirflow(mappedPipeline(10_000));

  const { videos } = await loadRun({ ...RUN, taskId: "wait", mapIndex: 9_000 }, new Map());

  assert.deepEqual(videos.map(({ id }) => id), ["video-9000"]);
  assert.equal(videos[0].prompt, "prompt 9000");
  assert.equal(videos[0].links.video, "https://cdn.test/video-9000.mp4");
  assert.ok(airflow.calls.length < 50, `${airflow.calls.length} calls`);
});

for (const [name, operator, shown] of [
  ["of another operator", EMAIL, 0],
  ["of one of ours", "LumaTaskSensor", 2],
]) {
  test(`ids and failures of a task ${name} are ${shown ? "" : "not "}shown`, async () => {
    const xcoms = [
      { task_id: "push", map_index: -1, key: "failed", value: {} },
      { task_id: "push", map_index: -1, key: "return_value", value: IDS },
    ];
    new FakeAirflow({ xcoms, tasks: [task("push", operator)] });

    assert.equal((await loadRun(RUN, new Map())).videos.length, shown);
  });
}

test("a class that extends one of ours is ours", async () => {
  const own = { ...task("push", EMAIL), template_fields: ["luma_task_ids", "luma_conn_id"] };
  const xcoms = [{ task_id: "push", map_index: -1, key: "luma_tasks", value: { "id-1": { index: 0 } } }];
  new FakeAirflow({ xcoms, tasks: [own] });

  assert.equal((await loadRun(RUN, new Map())).videos.length, 1);
});

test("a task that is gone from the Dag, or a Dag that is gone, is known by what its instances were", async () => {
  const xcoms = [{ task_id: "old", map_index: -1, key: "luma_tasks", value: { "id-1": { index: 0 } } }];
  const instances = [{ id: 1, task_id: "old", map_index: -1, state: "success", operator: "LumaGenerateVideoOperator" }];
  for (const status of [null, 403, 404]) {
    const airflow = new FakeAirflow({ xcoms, instances, tasks: [task("new")] });
    if (status !== null) airflow.failures.set("dags/dag/tasks", status);

    assert.equal((await loadRun(RUN, new Map())).videos.length, 1, `${status}`);
  }
});

test("waiting ids of another operator's field are not shown", async () => {
  const waiting = { state: "deferred", rendered_fields: { luma_task_ids: '["id-1"]' } };
  const instances = [{ id: 1, task_id: "push", map_index: -1, operator: EMAIL, ...waiting }];
  new FakeAirflow({ instances, tasks: [task("push", EMAIL)], state: "running" });

  assert.deepEqual((await loadRun(RUN, new Map())).videos, []);
});

for (const status of [404, 409]) {
  test(`an XCom that Airflow answers with ${status} is nothing`, async () => {
    const airflow = new FakeAirflow(mappedPipeline(2));
    airflow.failures.set("xcomEntries/luma_tasks", status);

    const { videos } = await loadRun(RUN, new Map());

    assert.deepEqual(videos.map(({ prompt }) => prompt), [null, null]);
  });
}

test("recent runs leave out Dags whose tasks merely push keys of the same names", async () => {
  const entry = (dag, key) => ({ dag_id: dag, run_id: "r", task_id: "t", map_index: -1, key, run_after: "2026-01-01" });
  new FakeAirflow({ xcoms: [entry("mails", "failed")], tasks: [task("t", EMAIL)] });
  assert.deepEqual((await findRecentRuns(new Map())).runs, []);

  new FakeAirflow({ xcoms: [entry("videos", "failed")], tasks: [task("t")] });
  const { runs, cut } = await findRecentRuns(new Map());
  assert.deepEqual(runs.map(({ dagId }) => dagId), ["videos"]);
  assert.equal(cut, false);
});
