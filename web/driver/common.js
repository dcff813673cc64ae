// What both pages need: formats, requests, polling. Nothing here knows a page's elements.

import { has, text } from "./texts.js";

const LOCALE = "en";
const PATIENCE_MS = 15_000;

// Amounts are integers of minor units; a price per kWh may have a fraction of one.
export function money(minor, { currency, exponent }, extraDigits = 0) {
  const digits = { minimumFractionDigits: exponent, maximumFractionDigits: exponent + extraDigits };
  const format = { style: "currency", currency, ...digits };
  return new Intl.NumberFormat(LOCALE, format).format(Number(minor) / 10 ** exponent);
}

export function energy(wattHours, digits = 2) {
  const format = { minimumFractionDigits: digits, maximumFractionDigits: digits };
  return `${new Intl.NumberFormat(LOCALE, format).format(wattHours / 1000)} kWh`;
}

export function duration(milliseconds) {
  const seconds = Math.max(0, Math.floor(milliseconds / 1000));
  const two = (number) => String(number).padStart(2, "0");
  const hours = Math.floor(seconds / 3600);
  const rest = `${two(Math.floor(seconds / 60) % 60)}:${two(seconds % 60)}`;
  return hours ? `${hours}:${rest}` : rest;
}

export function clock(iso) {
  return new Date(iso).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
}

// The sentence for a reason of the busy check, such as "LiveStatus:Occupied".
export function reasonText(reason) {
  const [kind, state] = (reason ?? "").split(":");
  if (kind === "ChargerOffline") return text("reason.offline");
  if (kind === "ActiveReservation") return text("reason.reserved");
  if (kind === "OpenTransaction" || state === "Occupied") return text("reason.inUse");
  if (state === "Unavailable" || state === "Faulted") return text("reason.notReady");
  return text("reason.other");
}

export class ApiError extends Error {
  constructor(code, { reason, status } = {}) {
    super(code);
    this.code = code;
    this.reason = reason;
    this.status = status;
  }

  get sentence() {
    if (this.code === "ConnectorBusy") return reasonText(this.reason);
    if (this.code === "ChargerOffline") return reasonText("ChargerOffline");
    return text(has(`error.${this.code}`) ? `error.${this.code}` : "error.other");
  }
}

let skew = 0;

// The server's time: a phone with a wrong clock must not show a wrong charging time.
export function serverNow() {
  return Date.now() + skew;
}

// The body of the answer; every failure, of the network too, is an ApiError.
export async function api(method, path, body) {
  let response;
  let answer;
  try {
    response = await fetch(path, {
      method,
      cache: "no-store",
      headers: body ? { "content-type": "application/json" } : {},
      body: body && JSON.stringify(body),
      signal: AbortSignal.timeout(PATIENCE_MS),
    });
    answer = await response.json();
  } catch {
    if (response && !response.ok) throw new ApiError("other", { status: response.status });
    throw new ApiError("Network");
  }
  if (!response.ok) throw new ApiError(answer.status ?? "other", { reason: answer.reason, status: response.status });
  const sent = Date.parse(response.headers.get("date"));
  if (!Number.isNaN(sent) && Math.abs(sent - Date.now()) > 2000) skew = sent - Date.now();
  return answer;
}

// Calls work every period until it returns false; pauses while the page is hidden, and runs at once when it is seen.
export function poll(work, milliseconds) {
  let timer;
  let working = false;
  let finished = false;
  const run = async () => {
    clearTimeout(timer);
    if (working || finished || document.hidden) return;
    working = true;
    finished = (await work()) === false;
    working = false;
    if (!finished && !document.hidden) timer = setTimeout(run, milliseconds);
  };
  document.addEventListener("visibilitychange", run);
  window.addEventListener("pageshow", (event) => event.persisted && run());
  return run();
}

export function element(id) {
  return document.getElementById(id);
}

// Sets a text only when it differs, so that screen readers hear changes and nothing else.
export function say(id, sentence) {
  const target = element(id);
  if (target.textContent !== sentence) target.textContent = sentence;
}

export function show(id, visible) {
  element(id).hidden = !visible;
}

export function applyTexts() {
  for (const target of document.querySelectorAll("[data-text]")) target.textContent = text(target.dataset.text);
}

// Opens an address that came from the API, if it is a web page.
export function webAddress(address) {
  const url = new URL(address, location.href);
  if (url.protocol !== "https:" && url.protocol !== "http:") throw new ApiError("other");
  return url.href;
}

// The reservation this browser made on a connector, so that a driver who comes back finds it.
export const memory = {
  key: (station, connector) => `session ${station.toLowerCase()} ${connector}`,
  keep(station, connector, reservation) {
    try {
      localStorage.setItem(this.key(station, connector), reservation);
    } catch {
      // Storage is off in this browser: the driver still has the address of the session.
    }
  },
  forget(station, connector) {
    try {
      localStorage.removeItem(this.key(station, connector));
    } catch {
      // Nothing was kept either.
    }
  },
  find(station, connector) {
    try {
      return localStorage.getItem(this.key(station, connector));
    } catch {
      return null;
    }
  },
};

export const FINAL = new Set(["Completed", "Cancelled", "Failed"]);
