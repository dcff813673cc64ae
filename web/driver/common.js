// What all pages share: API requests, polling, and changes of elements.

import { has, text } from "./texts.js";

const PATIENCE_MS = 15_000;
const SAID_BY_THE_API = new Set(["ConnectorBusy", "ChargerOffline"]);

export class ApiError extends Error {
  constructor(code, { said, status } = {}) {
    super(code);
    this.code = code;
    this.said = said;
    this.status = status;
  }

  get sentence() {
    if (SAID_BY_THE_API.has(this.code) && this.said) return this.said;
    return text(has(`error.${this.code}`) ? `error.${this.code}` : "error.other");
  }
}

let skew = 0;

// The server's time in milliseconds, because a phone's clock may be wrong.
export function serverNow() {
  return Date.now() + skew;
}

// The answer's body. Throws an ApiError for every failure, network failures included.
export async function api(method, path, body) {
  let response;
  let answer;
  try {
    response = await fetch(path, {
      method,
      cache: "no-store",
      // The API's messages must have the page's language.
      headers: {
        "accept-language": document.documentElement.lang,
        ...(body && { "content-type": "application/json" }),
      },
      body: body && JSON.stringify(body),
      signal: AbortSignal.timeout(PATIENCE_MS),
    });
    answer = await response.json();
  } catch {
    if (response && !response.ok) throw new ApiError("other", { status: response.status });
    throw new ApiError("Network");
  }
  if (!response.ok) throw new ApiError(answer.status ?? "other", { said: answer.message, status: response.status });
  const sent = Date.parse(response.headers.get("date"));
  if (!Number.isNaN(sent) && Math.abs(sent - Date.now()) > 2000) skew = sent - Date.now();
  return answer;
}

// Calls `work` again after as many milliseconds as it returned, until it returns null. Pauses while the page is hidden,
// and calls it at once when the page is shown again.
export function poll(work) {
  let timer;
  let working = false;
  let finished = false;
  const run = async () => {
    clearTimeout(timer);
    if (working || finished || document.hidden) return;
    working = true;
    const pause = await work();
    finished = pause === null;
    working = false;
    if (!finished && !document.hidden) timer = setTimeout(run, pause);
  };
  document.addEventListener("visibilitychange", run);
  window.addEventListener("pageshow", (event) => event.persisted && run());
  return run();
}

export function element(id) {
  return document.getElementById(id);
}

// Sets a text only if it differs, because screen readers read each text that is set.
export function say(id, sentence) {
  const target = element(id);
  if (target.textContent !== sentence) target.textContent = sentence;
}

// The same for several sentences, one paragraph each.
export function sayAll(id, sentences) {
  const target = element(id);
  const said = [...target.children].map((paragraph) => paragraph.textContent);
  if (JSON.stringify(said) === JSON.stringify(sentences)) return;
  target.replaceChildren(
    ...sentences.map((sentence) => {
      const paragraph = document.createElement("p");
      paragraph.textContent = sentence;
      return paragraph;
    }),
  );
}

export function show(id, visible) {
  element(id).hidden = !visible;
}

export function applyTexts() {
  for (const target of document.querySelectorAll("[data-text]")) target.textContent = text(target.dataset.text);
}

// The absolute address of one that came from the API. Throws an ApiError unless it is http or https.
export function webAddress(address) {
  const url = new URL(address, location.href);
  if (url.protocol !== "https:" && url.protocol !== "http:") throw new ApiError("other");
  return url.href;
}
