// SPDX-License-Identifier: Apache-2.0
// Create elements and format values. Text from outside always stays text.

const SVG = "http://www.w3.org/2000/svg";

/**
 * Create an element with attributes and children; a function among the attributes is an event listener.
 *
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {Record<string, string | boolean | null | undefined | ((event: any) => unknown)>} [attributes]
 * @param {...(Node | string | null)} children
 * @returns {HTMLElementTagNameMap[Tag]}
 */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

const ICONS = {
  alert: ["M12 8v5", "M12 16.5v.01", "M10.3 4 2.6 17.5A2 2 0 0 0 4.3 20.5h15.4a2 2 0 0 0 1.7-3L13.7 4a2 2 0 0 0-3.4 0z"],
  check: ["M5 12.5 10 17.5 19.5 7"],
  clock: ["M12 7v5.2l3.2 2", "M21 12a9 9 0 1 1-18 0 9 9 0 0 1 18 0z"],
  copy: ["M9 9h10a1.5 1.5 0 0 1 1.5 1.5v9A1.5 1.5 0 0 1 19 21H9.5A1.5 1.5 0 0 1 8 19.5V10a1 1 0 0 1 1-1z", "M5 15H4.5A1.5 1.5 0 0 1 3 13.5V4.5A1.5 1.5 0 0 1 4.5 3h9A1.5 1.5 0 0 1 15 4.5V5"],
  cross: ["M6 6l12 12", "M18 6 6 18"],
  link: ["M9.5 14.5 14.5 9.5", "M11 6.5l1.6-1.6a4.5 4.5 0 0 1 6.4 6.4L17.4 13", "M13 17.5l-1.6 1.6a4.5 4.5 0 0 1-6.4-6.4L6.6 11"],
  open: ["M14 4h6v6", "M20 4 11 13", "M18 14v4.5a1.5 1.5 0 0 1-1.5 1.5h-11A1.5 1.5 0 0 1 4 18.5v-11A1.5 1.5 0 0 1 5.5 6H10"],
  pause: ["M8 6v12", "M16 6v12"],
  play: ["M8 5.5v13l11-6.5z"],
  refresh: ["M20 11A8 8 0 0 0 5.6 7L4 8.5", "M4 4v4.5h4.5", "M4 13a8 8 0 0 0 14.4 4l1.6-1.5", "M20 20v-4.5h-4.5"],
  video: ["M5 5h14a2 2 0 0 1 2 2v10a2 2 0 0 1-2 2H5a2 2 0 0 1-2-2V7a2 2 0 0 1 2-2z", "M10 9.2v5.6l4.8-2.8z"],
};

/**
 * Create an icon, which screen readers skip.
 *
 * @param {keyof typeof ICONS} name
 */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("class", `icon icon-${name}`);
  svg.setAttribute("aria-hidden", "true");
  for (const line of ICONS[name]) {
    const path = document.createElementNS(SVG, "path");
    path.setAttribute("d", line);
    svg.append(path);
  }
  return svg;
}

/**
 * Format a duration: "45 s", "3 min 5 s", "2 h 10 min", "3 d".
 *
 * @param {number} milliseconds
 */
export function formatDuration(milliseconds) {
  const seconds = Math.max(0, Math.round(milliseconds / 1000));
  if (seconds < 60) return `${seconds} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 10) return seconds % 60 ? `${minutes} min ${seconds % 60} s` : `${minutes} min`;
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 24) return minutes % 60 ? `${hours} h ${minutes % 60} min` : `${hours} h`;
  return `${Math.floor(hours / 24)} d`;
}

/**
 * Create a time element that shows its full date as a tooltip.
 *
 * @param {number} milliseconds
 * @param {string} text
 */
export function makeTime(milliseconds, text) {
  const date = new Date(milliseconds);
  return make("time", { datetime: date.toISOString(), title: date.toLocaleString() }, text);
}

/** @type {(count: number, one: string, many?: string) => string} */
export function plural(count, one, many = `${one}s`) {
  return `${count} ${count === 1 ? one : many}`;
}

/**
 * Copy a text to the clipboard, even over plain http, where browsers have no clipboard API.
 *
 * @param {string} value
 */
export async function copyText(value) {
  try {
    await navigator.clipboard.writeText(value);
    return true;
  } catch {
    const field = make("textarea", { class: "visually-hidden", readonly: true, tabindex: "-1" });
    field.value = value;
    document.body.append(field);
    field.select();
    const copied = document.execCommand("copy");
    field.remove();
    return copied;
  }
}
