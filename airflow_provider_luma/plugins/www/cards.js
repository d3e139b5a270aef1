// SPDX-License-Identifier: Apache-2.0
// One video's card. It changes in place, so that a film goes on playing while the page refreshes.

import { followOutside, taskAddress } from "./airflow.js";
import { copyText, icon, make, moment, span } from "./dom.js";
import { sharesCookies } from "./videos.js";

const STATES = {
  waiting: { label: "Waiting", icon: "clock" },
  completed: { label: "Completed", icon: "check" },
  failed: { label: "Failed", icon: "cross" },
  unfinished: { label: "Unfinished", icon: "pause" },
};

// About what three lines of the narrowest card hold.
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
  #shown = {};

  constructor(video, scope) {
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

  update(video) {
    this.video = video;
    this.element.dataset.state = video.state;
    this.#show("badge", [video.state, video.refused, video.processing], () => this.#drawBadge());
    this.#show("title", [video.prompt], () => this.#drawTitle());
    this.#show("media", [video.state, video.links, video.width, video.height], () => this.#drawMedia());
    this.#show("facts", [video.width, video.height, video.duration, video.aspectRatio, video.createdAt], () =>
      this.#drawFacts(),
    );
    this.#show("files", [video.links], () => this.#drawFiles());
    this.#show("id", [video.id], () => this.#drawId());
    this.#drawNotes();
  }

  #show(part, values, draw) {
    const signature = JSON.stringify(values);
    if (this.#shown[part] === signature) return;
    this.#shown[part] = signature;
    draw();
  }

  #drawBadge() {
    const { state, refused, processing } = this.video;
    const { label, icon: name } = STATES[state];
    const words = refused ? "Refused" : state === "waiting" && processing ? "Processing" : label;
    this.#badge.replaceChildren(icon(name), words);
  }

  #drawTitle() {
    const { prompt } = this.video;
    this.#title.classList.toggle("none", !prompt);
    this.#title.classList.remove("whole");
    this.#title.replaceChildren(prompt ?? "No prompt known");
    this.#more.hidden = !prompt || prompt.length <= SHORT_PROMPT;
    this.#more.setAttribute("aria-expanded", "false");
    this.#more.textContent = "Show all";
  }

  #unfold() {
    const whole = this.#title.classList.toggle("whole");
    this.#more.setAttribute("aria-expanded", String(whole));
    this.#more.textContent = whole ? "Show less" : "Show all";
  }

  #drawFacts() {
    const { width, height, duration, aspectRatio, createdAt } = this.video;
    const facts = [];
    if (width && height) facts.push(`${Math.round(width)} × ${Math.round(height)}`);
    else if (aspectRatio) facts.push(aspectRatio);
    if (duration) facts.push(`${Math.round(duration * 10) / 10} s`);
    if (createdAt) facts.push(moment(createdAt, new Date(createdAt).toLocaleString()));
    this.#facts.replaceChildren(...facts.map((fact) => make("li", {}, fact)));
  }

  #drawFiles() {
    const { video, raw, thumbnail, lastFrame } = this.video.links ?? {};
    const files = [
      ["Video", video],
      ["Raw video", raw === video ? null : raw],
      ["Thumbnail", thumbnail],
      ["Last frame", lastFrame],
    ].filter(([, link]) => link);
    this.#files.replaceChildren(...files.map(([name, link]) => make("li", {}, outerLink(name, link))));
  }

  #drawId() {
    const { id } = this.video;
    if (id === null) {
      this.#id.replaceChildren();
      return;
    }
    const said = make("span", { class: "unseen", role: "status" });
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
          said.textContent = copied ? "Copied" : "The browser refuses to copy";
          setTimeout(() => {
            button.replaceChildren(icon("copy"));
            said.textContent = "";
          }, 2000);
        },
      },
      icon("copy"),
    );
    this.#id.replaceChildren(make("code", { title: id }, id), button, said);
  }

  #drawNotes() {
    const { state, refused, reason, submittedAt, waitedFor, links } = this.video;
    const notes = [];
    if (state === "failed") {
      notes.push(make("p", { class: "reason", dir: "auto" }, reason ?? "The relay gave no reason"));
      if (refused) notes.push(make("p", {}, "The relay didn't take this request and bills nothing for it."));
    } else if (state === "waiting") {
      const since = submittedAt ?? waitedFor?.since;
      if (since) {
        const age = moment(since, span(Date.now() - since));
        notes.push(submittedAt ? make("p", {}, "Submitted ", age, " ago") : make("p", {}, "Waiting for ", age));
      }
      if (waitedFor) {
        const { taskId, mapIndex, state: taskState } = waitedFor;
        const state = taskState.replaceAll("_", " ");
        notes.push(make("p", {}, "Task ", this.#taskLink(taskId, mapIndex), ` is ${state}`));
      }
    } else if (state === "unfinished") {
      notes.push(make("p", {}, "The run ended before this video did. It goes on at the relay."));
    } else if (!links) {
      notes.push(make("p", {}, "Its links have not been fetched yet."));
    } else if (!links.video) {
      notes.push(make("p", {}, "The relay gives no usable link to this video."));
    }
    this.#show("notes", [notes.map((note) => note.textContent)], () => this.#notes.replaceChildren(...notes));
  }

  #taskLink(taskId, mapIndex) {
    const { dagId, runId } = this.#scope;
    const name = mapIndex >= 0 ? `${taskId} [${mapIndex}]` : taskId;
    return make("a", { href: taskAddress(dagId, runId, taskId, mapIndex), click: followOutside }, name);
  }

  #drawMedia() {
    const { state, links, width, height } = this.video;
    // A picture of about the frame's shape fills it; any other is shown whole.
    this.#media.classList.toggle("wide", width / height > 1.6 && width / height < 2);
    if (links?.video) this.#drawPoster(links);
    else this.#media.replaceChildren(placeholder(state));
  }

  #drawPoster({ video, thumbnail }) {
    if (!thumbnail) {
      this.#drawFilm(video, { autoplay: false });
      return;
    }
    const button = make(
      "button",
      {
        type: "button",
        class: "poster",
        "aria-label": `Play: ${this.video.prompt ?? this.video.id}`,
        click: () => this.#drawFilm(video, { autoplay: true, poster: thumbnail }),
      },
      make("img", {
        ...source(thumbnail),
        alt: "",
        loading: "lazy",
        decoding: "async",
        referrerpolicy: "no-referrer",
        // Perhaps only the picture is gone: ask for the film itself.
        error: () => this.#drawFilm(video, { autoplay: false }),
      }),
      make("span", { class: "play" }, icon("play")),
    );
    this.#media.replaceChildren(button);
  }

  #drawFilm(link, { autoplay, poster }) {
    const film = make("video", {
      ...source(link),
      // The browser asks for a poster with cookies, whatever is said of the film.
      poster: poster && sharesCookies(poster) ? null : poster,
      controls: true,
      playsinline: true,
      loop: true,
      preload: autoplay ? "auto" : "metadata",
      "aria-label": this.video.prompt ?? this.video.id,
      error: () => this.#drawExpired(),
    });
    this.#media.replaceChildren(film);
    if (!autoplay) return;
    film.focus();
    // The browser may want another click; then the controls are there.
    film.play().catch(() => {});
  }

  #drawExpired() {
    const { taskId, mapIndex, at } = this.video.fetchedBy;
    const expired = make(
      "div",
      { class: "expired" },
      icon("link"),
      make("p", { class: "strong" }, "This link no longer works"),
      make(
        "p",
        {},
        "Relays' links hold for a limited time; these were fetched ",
        moment(at, `${span(Date.now() - at)} ago`),
        ". Clear the task ",
        this.#taskLink(taskId, mapIndex),
        " to fetch new ones. That is free of charge.",
      ),
      make(
        "button",
        { type: "button", class: "quiet", click: () => this.#drawFilm(this.video.links.video, { autoplay: true }) },
        icon("refresh"),
        "Try again",
      ),
    );
    this.#media.replaceChildren(expired);
  }
}

/** Where a file is loaded from: without cookies where the browser would send the viewer's. */
export function source(link) {
  return { crossorigin: sharesCookies(link) ? "anonymous" : null, src: link };
}

function placeholder(state) {
  const names = { waiting: "clock", completed: "film", failed: "alert", unfinished: "pause" };
  return make("div", { class: "placeholder" }, icon(names[state]));
}

function outerLink(name, link) {
  return make("a", { href: link, target: "_blank", rel: "noopener noreferrer", click: followOutside }, name);
}
