// The page that the station's sticker links to: /cp/<station>/<connector>. Shows state and price, opens the checkout,
// and leads back to a session that this browser began here.

import { api, applyTexts, element, poll, say, serverNow, show, webAddress } from "./common.js";
import { FINAL, badge, billsIdle, idleTerms, isFree, offer, priceTerms } from "./decisions.js";
import { clock, exactEnergy, minutes, money, percent } from "./format.js";
import { memory } from "./memory.js";
import { text } from "./texts.js";

const REFRESH_MS = 5000;
const ACTIONS = ["start", "resume", "restart"];
const [station, connector] = location.pathname.split("/").slice(2, 4).map(decodeURIComponent);
const address = `/payments/connectors/${encodeURIComponent(station)}/${encodeURIComponent(connector)}`;

let session = null;
let free = false;
let working = false;
let refusal = null;

function renderPrice(tariff) {
  free = isFree(tariff);
  show("free", free);
  show("paid", !free);
  if (!free) {
    say("per-kwh", text("price.perKwh", { price: money(tariff.pricePerKwh, tariff, 2) }));
    say("fee", money(tariff.sessionFee, tariff));
    say("hold", money(tariff.maxAmount, tariff));
    renderIdle(tariff);
    const values = {
      energy: exactEnergy(tariff.maxEnergyWh),
      minimum: exactEnergy(tariff.minimumEnergyWh),
      vat: percent(tariff.vatPercent),
    };
    say("hold-note", sentences(priceTerms(tariff), values));
  }
  say("how", text(free ? "start.howFree" : "start.how"));
  show("price", true);
}

function renderIdle(tariff) {
  const billed = billsIdle(tariff);
  show("idle", billed);
  if (!billed) return;
  say("idle-price", text("price.perMinute", { price: money(tariff.idlePricePerMinute, tariff, 2) }));
  const values = {
    grace: minutes(tariff.idleGraceMinutes),
    from: tariff.idleFreeFrom,
    until: tariff.idleFreeUntil,
    maximum: money(tariff.idleMaximum, tariff),
  };
  say("idle-terms", sentences(idleTerms(tariff), values));
}

function sentences(keys, values) {
  return keys.map((key) => text(key, values)).join(" ");
}

function sentence(state, choice) {
  if (choice === "follow") return text("resume.running");
  if (choice === "resume") return refusal ?? text("resume.unpaid", { until: clock(session.expiresAt) });
  if (state.startable) return refusal ?? "";
  return state.message ?? text("error.other");
}

function render(state) {
  const choice = offer(state, session, serverNow());
  const { kind, name } = badge(state);
  element("badge").dataset.kind = kind;
  say("badge", text(`badge.${name}`));
  renderPrice(state.tariff);
  say("reason", sentence(state, choice));
  element("reason").dataset.kind = choice === "follow" ? "good" : "";
  show("start", choice === "start");
  show("resume", choice === "resume");
  show("restart", choice === "resume" || choice === "giveUp");
  show("follow", choice === "follow");
  show("how", choice === "start");
  if (session) element("follow").href = `/session/${encodeURIComponent(session.reservationId)}`;
  if (working) return;
  for (const action of ACTIONS) element(action).disabled = false;
  element("start").disabled = !state.startable;
}

// Loads the reservation that this browser began here, and forgets it if it has ended.
async function recall() {
  const reservation = memory.find(station, connector);
  if (reservation === null) {
    session = null;
    return;
  }
  try {
    session = await api("GET", `/payments/status/${encodeURIComponent(reservation)}`);
    memory.follow(session);
    if (FINAL.has(session.status)) session = null;
  } catch (error) {
    if (error.status !== 404) return; // Without an answer, keep what was known.
    memory.forget(station, connector);
    session = null;
  }
}

async function refresh() {
  try {
    const [state] = await Promise.all([api("GET", address), recall()]);
    render(state);
  } catch (error) {
    say("reason", error.sentence);
    element("start").disabled = true;
    return error.status === 404 || error.status === 400 ? null : REFRESH_MS;
  }
  return REFRESH_MS;
}

// Runs `work` with all buttons disabled and the pressed one showing `meanwhile`. `work` returns true when the browser
// leaves the page.
async function press(button, meanwhile, work) {
  working = true;
  refusal = null;
  for (const action of ACTIONS) element(action).disabled = true;
  say(button, meanwhile);
  try {
    if (await work()) return;
  } catch (error) {
    refusal = error.sentence;
    say("reason", refusal);
  }
  reset();
  await refresh();
}

async function open(resume) {
  const asked = { chargePointId: station, connectorId: Number(connector), resume };
  const answer = await api("POST", "/payments/create", asked);
  if (answer.reservationId !== resume) memory.keep(station, connector, answer.reservationId);
  location.assign(webAddress(answer.status === "NothingToPay" ? answer.statusUrl : answer.checkoutUrl));
  return true;
}

// Cancels the session. If it can no longer be canceled, the refreshed page shows its state.
async function giveUp() {
  try {
    memory.follow(await api("POST", "/payments/cancel", { reservationId: session.reservationId }));
  } catch (error) {
    if (error.status !== 409) throw error;
  }
  return false;
}

function reset() {
  working = false;
  say("start", text("start.button"));
  say("resume", text("resume.button"));
  say("restart", text("resume.restart"));
}

applyTexts();
reset();
say("connector", text("start.connector", { connector }));
say("station", text("start.station", { station }));
document.title = text("start.title", { station, connector });
element("start").addEventListener("click", () => press("start", text(free ? "start.busyFree" : "start.busy"), open));
element("resume").addEventListener("click", () =>
  press("resume", text("start.busy"), () => open(session.reservationId)),
);
element("restart").addEventListener("click", () => press("restart", text("session.cancelling"), giveUp));
window.addEventListener("pageshow", (event) => event.persisted && reset());
poll(refresh);
