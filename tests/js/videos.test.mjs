// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { test } from "node:test";

import { HOME, load } from "./fake_airflow.mjs";

const { collectVideos, idsIn, idsOfTrigger, safeUrl, sharesCookies } = await load("videos.js");
const { cleanText } = await load("text.js");

const OURS = "airflow_provider_luma.triggers.luma.LumaTaskTrigger";
const NO_IDS = ["", "a@b.test", "a b", "x".repeat(129), "<img>", "../x", "id\n", "ｉｄ", 7, null, ["a"], {}];

function entry(key, value, more = {}) {
  return { taskId: "t", mapIndex: -1, key, at: 1, value, ...more };
}

function collect(...entries) {
  return collectVideos({ entries, waits: [], runEnded: true });
}

test("an invalid id makes no video, wherever it occurs", () => {
  for (const odd of NO_IDS) {
    const named = typeof odd === "string" ? { [odd]: { prompt: "p" } } : {};
    const entries = [
      entry("return_value", [odd, { id: odd, video_url: "https://cdn.test/a.mp4" }]),
      entry("luma_tasks", named),
      entry("failed", named),
    ];
    assert.deepEqual(collect(...entries), [], JSON.stringify(odd));
    assert.deepEqual(collectVideos({ entries: [], waits: [{ taskId: "t", ids: [odd], open: true }], runEnded: false }), []);
  }
});

test("a record without an id makes no video", () => {
  assert.deepEqual(collect(entry("return_value", [{ video_url: "https://cdn.test/a.mp4" }, []])), []);
});

test("a record with invalid fields keeps the valid ones", () => {
  const [video] = collect(
    entry("return_value", [{ id: "id-1", video_url: "https://cdn.test/a.mp4", width: 1e400, prompt: 7, created_at: {} }]),
  );

  assert.equal(video.urls.video, "https://cdn.test/a.mp4");
  assert.deepEqual([video.width, video.prompt, video.createdAt], [null, null, null]);
});

test("a URL into Airflow is refused in every spelling", () => {
  for (const url of [
    "http://airflow.test:8080/auth/logout",
    "HTTP://AIRFLOW.test:8080/auth/logout",
    "http://airflow.test:8080\\auth\\logout",
    "  http://airflow.test:8080/x.mp4",
    "http://user:secret@airflow.test:8080/",
    "http:airflow.test:8080/auth/logout",
    "/auth/logout",
    "auth/logout",
  ]) {
    assert.equal(safeUrl(url), null, url);
  }
  assert.equal(safeUrl("https://airflow.test/x", "https://airflow.test:443/luma/"), null);
});

test("a record with URLs into Airflow has no usable one", () => {
  const inside = `${new URL("/auth/logout", HOME)}`;
  const record = { id: "id-1", video_url: inside, video_raw_url: inside, thumbnail_url: inside, last_frame_url: inside };

  const [{ urls }] = collect(entry("return_value", [record]));

  assert.deepEqual(urls, { video: null, raw: null, thumbnail: null, lastFrame: null });
});

test("URLs with credentials, other schemes or excessive length are refused", () => {
  for (const url of ["https://a:b@cdn.test/x", "javascript:alert(1)", "data:text/html,x", "file:///x", null, 7, "null"]) {
    assert.equal(safeUrl(url), null, String(url));
  }
  assert.equal(safeUrl(`https://cdn.test/${"x".repeat(100_000)}`), null);
  assert.equal(safeUrl("HTTPS://cdn.test/x.mp4?sig=%2B"), "https://cdn.test/x.mp4?sig=%2B");
});

test("every port of Airflow's host shares its cookies", () => {
  assert.equal(sharesCookies("http://airflow.test:9000/x.jpg"), true);
  assert.equal(sharesCookies("https://AIRFLOW.test/x.jpg"), true);
  assert.equal(sharesCookies("https://cdn.test/x.jpg"), false);
});

test("ids of a trigger are read from its arguments", () => {
  const kwargs = "{'luma_conn_id': 'x', 'luma_task_ids': ['a-1', \"b-2\"], 'deadline': [1]}";

  assert.deepEqual(idsOfTrigger({ classpath: OURS, kwargs }), ["a-1", "b-2"]);
  assert.deepEqual(idsOfTrigger({ classpath: "someone.elses.Trigger", kwargs }), []);
  for (const odd of [null, undefined, {}, { classpath: OURS }, { classpath: OURS, kwargs: "'luma_task_ids': ['a'" }]) {
    assert.deepEqual(idsOfTrigger(odd), []);
  }
});

test("reading a trigger's arguments takes linear time", () => {
  // Quadratic work would take hours here.
  for (const part of ["'luma_task_ids': [", "'luma_task_ids': ", "'", "\"'a"]) {
    const kwargs = part.repeat(5_000_000 / part.length);
    idsOfTrigger({ classpath: OURS, kwargs });
    idsIn(kwargs);
  }
});

test("texts are one line of bounded length without invisible characters", () => {
  assert.equal(cleanText("a\u001b]0;t\u0007b\u009bc\u202ed\u2066e\u200bf\ufeffg\ud83d"), "a]0;tbcdefg");
  assert.equal(cleanText("two\r\nlines\u2028and"), "two lines and");
  assert.equal(cleanText("👩\u200d🚀 می\u200cخواهم"), "👩\u200d🚀 می\u200cخواهم");
  assert.equal(cleanText("x".repeat(10_000_000)).length, 5001);
  assert.equal(cleanText("😀".repeat(10), 5), "😀😀…");
  for (const nothing of [null, 7, {}, "", " \n", "\u202e\u200b"]) assert.equal(cleanText(nothing), null);
});

test("every text of a video is clean", () => {
  const hostile = "a\u202eb\u009bc";
  const videos = collect(
    entry("luma_tasks", { "id-1": { index: 0, prompt: hostile } }),
    entry("refused", [{ index: 0, prompt: hostile, reason: hostile }]),
    entry("failed", { "id-2": hostile }),
    entry("return_value", [{ id: "id-3", prompt: hostile, aspect_ratio: hostile }]),
  );

  assert.equal(videos.length, 4);
  assert.doesNotMatch(JSON.stringify(videos), /[\u202e\u009b]/);
});

test("two refusals with the same index are two videos", () => {
  assert.equal(collect(entry("refused", [{ index: 0 }, { index: 0 }, { index: "x" }])).length, 3);
});
