// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { test } from "node:test";

import { HOME, load } from "./fake_airflow.mjs";

const { collectVideos, idsIn, idsOfTrigger, safeLink, sharesCookies } = await load("videos.js");
const { cleanText } = await load("text.js");

const OURS = "airflow_provider_luma.triggers.luma.LumaTaskTrigger";
const NO_IDS = ["", "a@b.test", "a b", "x".repeat(129), "<img>", "../x", "id\n", "ｉｄ", 7, null, ["a"], {}];

function entry(key, value, more = {}) {
  return { taskId: "t", mapIndex: -1, key, at: 1, value, ...more };
}

function collect(...entries) {
  return collectVideos({ entries, waits: [], ended: true });
}

test("what doesn't look like an id makes no video, wherever it stands", () => {
  for (const odd of NO_IDS) {
    const named = typeof odd === "string" ? { [odd]: { prompt: "p" } } : {};
    const entries = [
      entry("return_value", [odd, { id: odd, video_url: "https://cdn.test/a.mp4" }]),
      entry("luma_tasks", named),
      entry("failed", named),
    ];
    assert.deepEqual(collect(...entries), [], JSON.stringify(odd));
    assert.deepEqual(collectVideos({ entries: [], waits: [{ taskId: "t", ids: [odd], open: true }], ended: false }), []);
  }
});

test("a record without an id makes no video", () => {
  assert.deepEqual(collect(entry("return_value", [{ video_url: "https://cdn.test/a.mp4" }, []])), []);
});

test("a record's odd fields cost it nothing but themselves", () => {
  const [video] = collect(
    entry("return_value", [{ id: "id-1", video_url: "https://cdn.test/a.mp4", width: 1e400, prompt: 7, created_at: {} }]),
  );

  assert.equal(video.links.video, "https://cdn.test/a.mp4");
  assert.deepEqual([video.width, video.prompt, video.createdAt], [null, null, null]);
});

test("a link into Airflow is none, however it is spelled", () => {
  for (const link of [
    "http://airflow.test:8080/auth/logout",
    "HTTP://AIRFLOW.test:8080/auth/logout",
    "http://airflow.test:8080\\auth\\logout",
    "  http://airflow.test:8080/x.mp4",
    "http://user:secret@airflow.test:8080/",
    "http:airflow.test:8080/auth/logout",
    "/auth/logout",
    "auth/logout",
  ]) {
    assert.equal(safeLink(link), null, link);
  }
  assert.equal(safeLink("https://airflow.test/x", "https://airflow.test:443/luma/"), null);
});

test("a record with links into Airflow alone has no usable one", () => {
  const inside = `${new URL("/auth/logout", HOME)}`;
  const record = { id: "id-1", video_url: inside, video_raw_url: inside, thumbnail_url: inside, last_frame_url: inside };

  const [{ links }] = collect(entry("return_value", [record]));

  assert.deepEqual(links, { video: null, raw: null, thumbnail: null, lastFrame: null });
});

test("links with credentials, other schemes or without end are none", () => {
  for (const link of ["https://a:b@cdn.test/x", "javascript:alert(1)", "data:text/html,x", "file:///x", null, 7, "null"]) {
    assert.equal(safeLink(link), null, String(link));
  }
  assert.equal(safeLink(`https://cdn.test/${"x".repeat(100_000)}`), null);
  assert.equal(safeLink("HTTPS://cdn.test/x.mp4?sig=%2B"), "https://cdn.test/x.mp4?sig=%2B");
});

test("another port of Airflow's host gets no cookies", () => {
  assert.equal(sharesCookies("http://airflow.test:9000/x.jpg"), true);
  assert.equal(sharesCookies("https://AIRFLOW.test/x.jpg"), true);
  assert.equal(sharesCookies("https://cdn.test/x.jpg"), false);
});

test("ids of a trigger are read from its text", () => {
  const kwargs = "{'luma_conn_id': 'x', 'luma_task_ids': ['a-1', \"b-2\"], 'deadline': [1]}";

  assert.deepEqual(idsOfTrigger({ classpath: OURS, kwargs }), ["a-1", "b-2"]);
  assert.deepEqual(idsOfTrigger({ classpath: "someone.elses.Trigger", kwargs }), []);
  for (const odd of [null, undefined, {}, { classpath: OURS }, { classpath: OURS, kwargs: "'luma_task_ids': ['a'" }]) {
    assert.deepEqual(idsOfTrigger(odd), []);
  }
});

test("the work for a trigger's text grows with its length alone", () => {
  // Quadratic work would take hours here.
  for (const part of ["'luma_task_ids': [", "'luma_task_ids': ", "'", "\"'a"]) {
    const kwargs = part.repeat(5_000_000 / part.length);
    idsOfTrigger({ classpath: OURS, kwargs });
    idsIn(kwargs);
  }
});

test("texts from outside are one line without invisible characters, and of bounded length", () => {
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

test("two refusals of the same number are two", () => {
  assert.equal(collect(entry("refused", [{ index: 0 }, { index: 0 }, { index: "x" }])).length, 3);
});
