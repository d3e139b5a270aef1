// SPDX-License-Identifier: Apache-2.0
// Make text from outside safe to show: the only place where the gallery does that.

export const MAX_TEXT = 5000;

const BLANKS = /[\t-\r\x85\u2028\u2029]+/g;
// Controls, soft hyphen, marks of direction, invisible operators, tags, and lone surrogates. The joiners U+200C
// and U+200D stay, because Persian words and emoji need them.
const UNSAFE =
  /[\0-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ud800-\udfff\ufeff\ufff9-\ufffb\u{e0000}-\u{e007f}]/gu;

/**
 * Return a text on one line, without invisible characters and shortened to limit, or null if nothing remains.
 *
 * @param {unknown} value
 * @param {number} [limit]
 */
export function cleanText(value, limit = MAX_TEXT) {
  if (typeof value !== "string") return null;
  const clean = value.slice(0, 4 * limit).replace(BLANKS, " ").replace(UNSAFE, "").trim();
  const shortened = clean.length <= limit ? clean : `${clean.slice(0, limit).replace(UNSAFE, "")}…`;
  return shortened || null;
}
