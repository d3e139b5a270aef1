// SPDX-License-Identifier: Apache-2.0
// The card of one video. It is updated in place, so that the video keeps playing while the page refreshes.

import { followOutside, taskUrl } from "./airflow.js";
import { copyText, formatDuration, icon, make, makeTime } from "./dom.js";
import { sharesCookies } from "./videos.js";

/** @import { State, Video } from "./videos.js" */

/** @type {Record<State, { label: string, icon: Parameters<typeof icon>[0], placeholder: Parameters<typeof icon>[0] }>} */
const STATES = {
  waiting: { label: "Waiting", icon: "clock", placeholder: "clock" },
  completed: { label: "Completed", icon: "check", placeholder: "video" },
  failed: { label: "Failed", icon: "cross", placeholder: "alert" },
  unfinished: { label: "Unfinished", icon: "pause", placeholder: "pause" },
};

// About three lines of the narrowest card.
const SHORT_PROMPT = 90;

export class Card {
  #scope;
  #title = make("h3", { class: "prompt", dir: "auto" });
  #more = make("button", { type: "button", class: "unfold", click: () => this.#unfold() });
  #media = make("div", { class: "media" });
  #badge = make("p", { class: "badge" });
  #notes = make("div", { class: "notes" });
  #facts = make("ul", { class: "facts" });
  #files = make("ul", { class: "files" });
  #id = make("div", { class: "id" });
  /** @type {Record<string, string>} */
  #drawn = {};

  /**
   * @param {Video} video
   * @param {{ dagId: string, runId: string }} scope
   */
  constructor(video, scope) {
    this.video = video;
    this.#scope = scope;
    this.key = video.key;
    this.element = make(
      "li",
      { class: "card" },
      make(
        "article",
        {},
        this.#media,
        make("div", { class: "body" }, this.#badge, this.#title, this.#more, this.#notes, this.#facts, this.#files, this.#id),
      ),
    );
    this.update(video);
  }

  /** @param {Video} video */
  update(video) {
    this.video = video;
    this.element.dataset.state = video.state;
    this.#show("badge", [video.state, video.refused, video.processing], () => this.#drawBadge());
    this.#show("title", [video.prompt], () => this.#drawTitle());
    this.#show("media", [video.state, video.urls, video.width, video.height], () => this.#drawMedia());
    this.#show("facts", [video.width, video.height, video.duration, video.aspectRatio, video.createdAt], () =>
      this.#drawFacts(),
    );
    this.#show("files", [video.urls], () => this.#drawFiles());
    this.#show("id", [video.id], () => this.#drawId());
    this.#drawNotes();
  }

  /** @type {(part: string, values: readonly unknown[], draw: () => void) => void} */
  #show(part, values, draw) {
    const signature = JSON.stringify(values);
    if (this.#drawn[part] === signature) return;
    this.#drawn[part] = signature;
    draw();
  }

  #drawBadge() {
    const { state, refused, processing } = this.video;
    const { label, icon: name } = STATES[state];
    const text = refused ? "Refused" : state === "waiting" && processing ? "Processing" : label;
    this.#badge.replaceChildren(icon(name), text);
  }

  #drawTitle() {
    const { prompt } = this.video;
    this.#title.classList.toggle("none", !prompt);
    this.#title.classList.remove("unfolded");
    this.#title.replaceChildren(prompt ?? "No prompt");
    this.#more.hidden = !prompt || prompt.length <= SHORT_PROMPT;
    this.#more.setAttribute("aria-expanded", "false");
    this.#more.textContent = "Show all";
  }

  #unfold() {
    const unfolded = this.#title.classList.toggle("unfolded");
    this.#more.setAttribute("aria-expanded", String(unfolded));
    this.#more.textContent = unfolded ? "Show less" : "Show all";
  }

  #drawFacts() {
    const { width, height, duration, aspectRatio, createdAt } = this.video;
    const facts = [];
    if (width && height) facts.push(`${Math.round(width)} × ${Math.round(height)}`);
    else if (aspectRatio) facts.push(aspectRatio);
    if (duration) facts.push(`${Math.round(duration * 10) / 10} s`);
    if (createdAt) facts.push(makeTime(createdAt, new Date(createdAt).toLocaleString()));
    this.#facts.replaceChildren(...facts.map((fact) => make("li", {}, fact)));
  }

  #drawFiles() {
    const { urls } = this.video;
    const files = Object.entries({
      Video: urls?.video,
      "Raw video": urls?.raw === urls?.video ? null : urls?.raw,
      Thumbnail: urls?.thumbnail,
      "Last frame": urls?.lastFrame,
    });
    this.#files.replaceChildren(...files.flatMap(([name, url]) => (url ? [make("li", {}, outerLink(name, url))] : [])));
  }

  #drawId() {
    const { id } = this.video;
    if (id === null) {
      this.#id.replaceChildren();
      return;
    }
    const status = make("span", { class: "visually-hidden", role: "status" });
    const button = make(
      "button",
      {
        type: "button",
        class: "quiet",
        "aria-label": `Copy id ${id}`,
        title: "Copy the id",
        click: async () => {
          const copied = await copyText(id);
          button.replaceChildren(icon(copied ? "check" : "cross"));
          status.textContent = copied ? "Copied" : "The browser refused to copy";
          setTimeout(() => {
            button.replaceChildren(icon("copy"));
            status.textContent = "";
          }, 2000);
        },
      },
      icon("copy"),
    );
    this.#id.replaceChildren(make("code", { title: id }, id), button, status);
  }

  #drawNotes() {
    const { state, refused, reason, submittedAt, waitedFor, urls } = this.video;
    /** @type {HTMLElement[]} */
    const notes = [];
    if (state === "failed") {
      notes.push(make("p", { class: "reason", dir: "auto" }, reason ?? "The relay gave no reason."));
      if (refused) notes.push(make("p", {}, "The relay refused this request; it is not billed."));
    } else if (state === "waiting") {
      const since = submittedAt ?? waitedFor?.since;
      if (since) {
        const age = makeTime(since, formatDuration(Date.now() - since));
        notes.push(submittedAt ? make("p", {}, "Submitted ", age, " ago") : make("p", {}, "Waiting for ", age));
      }
      if (waitedFor) {
        const taskState = waitedFor.state.replaceAll("_", " ");
        notes.push(make("p", {}, "Task ", this.#taskLink(waitedFor), ` is ${taskState}`));
      }
    } else if (state === "unfinished") {
      notes.push(make("p", {}, "The Dag run ended before this video was completed. It keeps running at the relay."));
    } else if (!urls) {
      notes.push(make("p", {}, "The URLs of its files have not been fetched yet."));
    } else if (!urls.video) {
      notes.push(make("p", {}, "The relay returned no usable URL for this video."));
    }
    this.#show("notes", [notes.map((note) => note.textContent)], () => this.#notes.replaceChildren(...notes));
  }

  /** @param {{ taskId: string, mapIndex: number }} instance */
  #taskLink({ taskId, mapIndex }) {
    const { dagId, runId } = this.#scope;
    const name = mapIndex >= 0 ? `${taskId} [${mapIndex}]` : taskId;
    return make("a", { href: taskUrl(dagId, runId, taskId, mapIndex), click: followOutside }, name);
  }

  #drawMedia() {
    const { state, urls, width, height } = this.video;
    // A thumbnail of about 16:9 fills the frame; any other is shown whole.
    const ratio = width && height ? width / height : 0;
    this.#media.classList.toggle("wide", ratio > 1.6 && ratio < 2);
    if (urls?.video) this.#drawPoster(urls.video, urls.thumbnail);
    else this.#media.replaceChildren(make("div", { class: "placeholder" }, icon(STATES[state].placeholder)));
  }

  /** @type {(url: string, thumbnail: string | null) => void} */
  #drawPoster(url, thumbnail) {
    if (!thumbnail) {
      this.#drawPlayer(url, { autoplay: false });
      return;
    }
    const button = make(
      "button",
      {
        type: "button",
        class: "poster",
        "aria-label": `Play: ${this.video.prompt ?? this.video.id}`,
        click: () => this.#drawPlayer(url, { autoplay: true, poster: thumbnail }),
      },
      make("img", {
        ...source(thumbnail),
        alt: "",
        loading: "lazy",
        decoding: "async",
        referrerpolicy: "no-referrer",
        // Only the thumbnail may be missing, so try the video itself.
        error: () => this.#drawPlayer(url, { autoplay: false }),
      }),
      make("span", { class: "play" }, icon("play")),
    );
    this.#media.replaceChildren(button);
  }

  /** @type {(url: string, options: { autoplay: boolean, poster?: string }) => void} */
  #drawPlayer(url, { autoplay, poster }) {
    const player = make("video", {
      ...source(url),
      // Browsers send cookies with the request for a poster, even if the video is loaded without them.
      poster: poster && sharesCookies(poster) ? null : poster,
      controls: true,
      playsinline: true,
      loop: true,
      preload: autoplay ? "auto" : "metadata",
      "aria-label": this.video.prompt ?? this.video.id,
      error: () => this.#drawExpired(url),
    });
    this.#media.replaceChildren(player);
    if (!autoplay) return;
    player.focus();
    // The browser may refuse to play without another click, for which the controls are there.
    player.play().catch(() => {});
  }

  /** @param {string} url */
  #drawExpired(url) {
    const { fetchedBy } = this.video;
    const expired = make(
      "div",
      { class: "expired" },
      icon("link"),
      make("p", { class: "strong" }, "This URL no longer works"),
      make(
        "p",
        {},
        "The relay's URLs expire. ",
        ...(fetchedBy
          ? [
              "These were fetched ",
              makeTime(fetchedBy.at, `${formatDuration(Date.now() - fetchedBy.at)} ago`),
              ". Clear the task ",
              this.#taskLink(fetchedBy),
              " to fetch new ones, free of charge.",
            ]
          : []),
      ),
      make(
        "button",
        { type: "button", class: "quiet", click: () => this.#drawPlayer(url, { autoplay: true }) },
        icon("refresh"),
        "Try again",
      ),
    );
    this.#media.replaceChildren(expired);
  }
}

/**
 * Return the attributes to load a file with: without cookies where the browser would send those of Airflow.
 *
 * @param {string} url
 */
export function source(url) {
  return { crossorigin: sharesCookies(url) ? "anonymous" : null, src: url };
}

/** @type {(name: string, url: string) => HTMLElement} */
function outerLink(name, url) {
  return make("a", { href: url, target: "_blank", rel: "noopener noreferrer", click: followOutside }, name);
}
